"""Artifacts answer by the text rule that they were trained by."""

import dataclasses
import json
from pathlib import Path

import pytest

from headrace.learning.data.validation import text_keys
from headrace.model.artifact import About, assemble, decode, encode, load
from headrace.model.backends.interface import open_backend
from headrace.model.words import HASHING, RULES
from tests.support.networks import VOCABULARY, random_artifact

OLD = Path(__file__).parent / "text_rule_1"


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_an_artifact_of_the_first_rule_answers_to_the_bit_as_before(backend: str) -> None:
    told = json.loads((OLD / "logits.json").read_text("utf-8"))
    artifact = load(str(OLD / "artifact.safetensors"))
    assert RULES[artifact.network.hashing] == 1
    found = open_backend(backend, artifact).logits([text.encode() for text in told["texts"]])
    assert found.tolist() == told["logits"]


def test_an_artifact_keeps_its_rule_when_it_is_written_again() -> None:
    artifact = load(str(OLD / "artifact.safetensors"))
    assert decode(encode(artifact.network, artifact.about), "again")[0].hashing == artifact.network.hashing
    assert assemble(artifact.network, artifact.about).sha256 == artifact.sha256


@pytest.mark.parametrize("hashing", RULES)
def test_the_backends_agree_by_every_rule(hashing: str) -> None:
    network = dataclasses.replace(random_artifact(5).network, hashing=hashing)
    artifact = assemble(network, About())
    first, second = VOCABULARY[:2]
    texts = [f"{first}\u00ad{second}", f"{first}\u0301 {second}", "เด็กไทย", "", f"{first} {second}", "cafe\u0301\ud800"]
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    cpu, reference = (open_backend(name, artifact).logits(encoded) for name in ("cpu", "reference"))
    assert cpu.tolist() == reference.tolist()


def test_a_text_of_letters_and_spaces_has_one_key_by_every_rule() -> None:
    # So that splits and ids of the first rule hold for what the second cuts alike.
    assert len({text_keys(["Rates rise again, don't they? 你好"], hashing)[0] for hashing in RULES}) == 1
    composed, decomposed = text_keys(["caf\u00e9", "cafe\u0301"], HASHING)
    assert composed == decomposed
