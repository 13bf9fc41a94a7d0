"""An explanation's parts are the answer: they add up to the logit that every backend computes."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.model.artifact import Artifact
from headrace.model.backends.interface import Backend, open_backend
from headrace.model.explanation import MOST_PARTS, Explainer
from headrace.model.quantizing import Bits
from headrace_schemas.records import Explanation, Part, Window
from tests.support.networks import TEXT, VOCABULARY, random_artifact

SHAPES = {
    "default": {},
    "one label": {"labels": 1},
    "many labels": {"labels": 40},
    "other widths": {"widths": (1, 3, 5, 7)},
    "one token": {"max_tokens": 1},
    "long texts": {"max_tokens": 2000},
    "convolution alone": {"blend": 1.0},
    "wide part alone": {"blend": 0.0},
    "huge weights": {"scale": 1e4},
    "four bits": {"bits": Bits(4, 4), "labels": 5},
}
TEXTS = st.lists(st.sampled_from([*VOCABULARY, "unheard-of", "\u00e9", "e\u0301", "\n"]), max_size=30).map(" ".join)


@cache
def opened(shape: str) -> tuple[Artifact, Explainer, Backend]:
    artifact = random_artifact(3, **SHAPES[shape])  # type: ignore[arg-type]
    return artifact, Explainer(artifact), open_backend("cpu", artifact)


def sums(explanation: Explanation, parts: Sequence[Part]) -> tuple[float, float]:
    return (
        explanation.bias + explanation.rest + sum(part.part for part in parts),
        explanation.against_bias + explanation.against_rest + sum(part.against for part in parts),
    )


def agrees(shape: str, text: str) -> Explanation:
    artifact, explainer, backend = opened(shape)
    explanation = explainer.explain(text)
    logits = backend.logits([text.encode()])[0]
    order = np.argsort(-logits, kind="stable")
    exact = [int(logits[label]) * artifact.network.unit for label in order[:2]]
    parts = (*explanation.words, *explanation.pairs)
    # Rounded to six decimals each, and float64 keeps some sixteen digits of a large one.
    near = pytest.approx(exact, abs=1e-6 * (len(parts) + 3), rel=1e-9)
    assert explanation.label == artifact.labels[order[0]]
    assert [explanation.logit, explanation.against_logit][: len(exact)] == near
    assert list(sums(explanation, parts))[: len(exact)] == near
    assert explanation.against == (artifact.labels[order[1]] if len(order) > 1 else None)
    return explanation


@pytest.mark.parametrize("shape", SHAPES)
@given(TEXTS)
def test_the_parts_add_up_to_the_logits_of_the_label_and_of_the_runner_up(shape: str, text: str) -> None:
    agrees(shape, text)


def test_of_a_long_text_the_strongest_parts_are_told_and_the_rest_is_their_sum() -> None:
    explanation = agrees("long texts", TEXT * 60)
    assert len(explanation.words) == MOST_PARTS
    assert len(explanation.pairs) == MOST_PARTS
    assert explanation.rest != 0
    places = [(part.begin, part.end) for part in explanation.words]
    assert places == sorted(places)


def test_windows_hold_what_the_convolution_gives_to_the_words() -> None:
    explanation = agrees("convolution alone", TEXT)
    for name in ("part", "against"):
        of_words = sum(getattr(part, name) for part in explanation.words)
        assert sum(getattr(window, name) for window in explanation.windows) == pytest.approx(of_words, abs=1e-4)
    network = opened("convolution alone")[0].network
    assert sum(window.filters for window in explanation.windows) <= network.filters_a_width * len(network.widths)


def test_the_wide_part_alone_has_no_windows_that_count() -> None:
    assert all(window.part == 0 for window in agrees("wide part alone", TEXT).windows)


@given(TEXTS)
def test_places_are_those_of_the_words_in_the_composed_text(text: str) -> None:
    explanation = opened("long texts")[1].explain(text)
    composed = unicodedata.normalize("NFC", text)
    told: list[Part | Window] = [*explanation.words, *explanation.pairs, *explanation.windows]
    for part in told:
        assert 0 <= part.begin < part.end <= len(composed)
        assert composed[part.begin : part.end].strip() == composed[part.begin : part.end]


def test_a_text_without_words_has_its_label_by_the_biases() -> None:
    explanation = agrees("default", " \n")
    assert (explanation.words, explanation.pairs, explanation.windows) == ((), (), ())
    assert explanation.bias == explanation.logit


def test_the_largest_explanation_is_a_small_part_of_a_record() -> None:
    part, window = Part(65_535, 65_536, -1e9 / 3, -1e9 / 3), Window(65_535, 65_536, 10_000, -1e9 / 3, -1e9 / 3)
    many = Explanation(
        label="x", logit=1.0, bias=1.0, words=(part,) * MOST_PARTS, pairs=(part,) * MOST_PARTS,
        windows=(window,) * MOST_PARTS,
    )  # fmt: skip
    assert len(msgspec.json.encode(many)) < 128 * 1024
