"""The peers' network is the artifact's convolution, and answers go to whom they belong."""

import dataclasses
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from headrace.model.backends.reference import ReferenceBackend
from headrace_schemas.codec import encode_request
from headrace_schemas.records import ClassifyRequest
from load.peers.bench import drained
from load.peers.echo import answer
from load.peers.export import module, vocabulary, write
from load.peers.model import PADDING, UNKNOWN, Model, rows_of, split
from tests.support.networks import random_artifact

TEXTS = ["The good film, not bad!", "bad bad bad, film 7", "not the film ! !", "don't _x 7 good"]


@pytest.mark.parametrize("seed", range(5))
def test_the_exported_network_gives_the_artifacts_convolution(seed: int) -> None:
    artifact = random_artifact(seed, labels=4, dimensions=24, filters=16)
    alone = dataclasses.replace(artifact, network=dataclasses.replace(artifact.network, wide_factor=0))
    expected = ReferenceBackend(alone).logits([text.encode() for text in TEXTS]) * alone.network.unit
    network, words = module(artifact.network), vocabulary(artifact.network, TEXTS)
    with torch.inference_mode():
        found = np.concatenate([network(rows_of([text], words, 12, 4)).numpy() for text in TEXTS])
    # What differs is the rounding of the folded tables' entries to 8 bits.
    assert np.abs(found - expected).max() < 0.02 * np.ptp(expected)


def test_words_are_cut_as_headrace_cuts_english() -> None:
    assert split("The film's good, isn't it?!") == ["the", "film's", "good", ",", "isn't", "it", "?", "!"]


def test_rows_are_padded_to_the_longest_text_and_the_largest_width() -> None:
    rows = rows_of(["a b c d e f", "b", ""], {"a": 2, "b": 3}, max_tokens=5, least=4)
    assert rows.tolist() == [
        [2, 3, UNKNOWN, UNKNOWN, UNKNOWN],
        [3, PADDING, PADDING, PADDING, PADDING],
        [PADDING] * 5,
    ]
    assert rows_of(["b"], {"b": 3}, max_tokens=5, least=4).shape == (1, 4)


def test_each_request_gets_the_answer_to_its_own_text(tmp_path: Path) -> None:
    write(random_artifact(3, labels=4), TEXTS, tmp_path)
    model = Model(str(tmp_path), "torch", 1)
    # Many more than go through the network at once, of several lengths; cut to as many words, so that none is padded.
    requests = [{"id": str(place), "text": " ".join([TEXTS[place % 4]] * (4 + place % 3))} for place in range(300)]
    of_text: dict[str, set[object]] = {}
    for request, found in zip(requests, answers := model.answer(requests), strict=True):
        assert found["id"] == request["id"]
        of_text.setdefault(request["text"], set()).add(found["label"])
    assert all(len(labels) == 1 for labels in of_text.values())
    assert len({found["label"] for found in answers}) > 1


def test_an_engine_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no engine 'tf'"):
        Model(str(tmp_path), "tf", 1)


@pytest.mark.parametrize("text", ["plain", 'with "id":"7" in it', 'ends with "id":', "é 你"])
def test_an_echo_answers_the_id(text: str) -> None:
    value = answer(encode_request(ClassifyRequest(text=text, id="12345")))
    assert msgspec.json.decode(value)["id"] == "12345"


def test_every_contender_has_a_name_of_its_own() -> None:
    names = [one.contender.name for one in drained(Path("a"), Path("b"), Path("c"))]
    assert len(set(names)) == len(names)
