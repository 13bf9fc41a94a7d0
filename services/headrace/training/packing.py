"""A trained network as a version: quantized, scored as it will answer, with texts by which a worker can test it."""

from __future__ import annotations

import hashlib

import msgspec
import numpy as np

from headrace.model.artifact import About, Artifact, Canary, assemble, library_versions
from headrace.model.backends.interface import Backend, open_backend
from headrace.model.network import Network, float_logits
from headrace.model.quantizing import quantize
from headrace.training.answering import answer
from headrace.training.dataset import Rows
from headrace.training.report import Report, compare
from headrace_schemas.records import Lineage

_MOST_CANARIES = 16
_CANARY_CHARACTERS = 200


class Packed(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact, the test report of its int8 answers and of the fp32 network, and the share of equal answers."""

    artifact: Artifact
    report: Report
    float_report: Report
    agreement: float


def pack(network: Network, test: Rows, lineage: Lineage) -> Packed:
    """Quantize ``network`` and score it on ``test`` by the cpu backend, with the fp32 network beside it.

    Equal arguments give an artifact of equal SHA-256: it holds no time. Raises ValueError for a network that the
    integers can't hold.
    """
    quantized = quantize(network)
    backend = open_backend("cpu", assemble(quantized, About()))
    answers = answer(backend, test.texts)
    best = np.argmax(float_logits(network, test.texts), axis=1)
    float_answers = [network.labels[place] for place in best]
    report, float_report = compare(test.labels, answers), compare(test.labels, float_answers)
    agreement = sum(one == other for one, other in zip(answers, float_answers, strict=True)) / len(answers)
    about = About(
        lineage=lineage,
        metrics={
            "test_rows": float(report.rows),
            "test_accuracy": report.accuracy,
            "test_macro_f1": report.macro_f1,
            "test_accuracy_fp32": float_report.accuracy,
            "agreement_fp32": agreement,
        },
        libraries=library_versions(),
        canaries=_canaries(backend, test),
    )
    return Packed(artifact=assemble(quantized, about), report=report, float_report=float_report, agreement=agreement)


def lineage_of(rows: Rows, source: str) -> Lineage:
    """What a version was trained on: ``source`` as a name, and a digest of every text and label in order."""
    digest = hashlib.sha256(msgspec.msgpack.encode(rows)).hexdigest()
    return Lineage(source=source, digest=digest, rows=len(rows))


def _canaries(backend: Backend, rows: Rows) -> tuple[Canary, ...]:
    """The beginning of one text of each of the first classes, with the label that this version gives it."""
    first_of_class = dict(zip(reversed(rows.labels), reversed(rows.texts), strict=True))
    texts = [first_of_class[label][:_CANARY_CHARACTERS] for label in sorted(first_of_class)[:_MOST_CANARIES]]
    return tuple(Canary(text, label) for text, label in zip(texts, answer(backend, texts), strict=True))
