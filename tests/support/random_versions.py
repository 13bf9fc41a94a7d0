"""Versions of random weights, as files that a worker can be started with, and texts for them."""

from __future__ import annotations

from pathlib import Path

from headrace.model.artifact import About, Artifact, Canary, assemble, save
from headrace.model.backends.interface import open_backend
from headrace.model.quantizing import quantize
from tests.support.networks import TEXT, random_network

WORDS = TEXT.split()


def text(number: int) -> str:
    return " ".join(WORDS[(number * step + step) % len(WORDS)] for step in range(1, 12))


def random_version(seed: int, path: Path) -> Artifact:
    """A version of random weights with a canary that it answers, written to ``path``."""
    network = quantize(random_network(seed))
    draft = assemble(network, About())
    labels = open_backend("cpu", draft).classify([b"the good film"]).labels
    made = assemble(network, About(canaries=(Canary("the good film", draft.labels[labels[0]]),)))
    save(made, str(path))
    return made
