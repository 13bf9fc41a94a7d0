"""One suite for all backends: whatever they compute with, the integers are those of ``reference``.

``cuda`` is tested where there is a GPU, and everywhere under Triton's interpreter, as ``cuda-interpreted``. That one
takes 20 ms a text, so what does not add to it is left to the slow tests.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.model.artifact import About, Artifact, assemble
from headrace.model.backends import Backend, open_backend
from headrace.model.backends.cpu import rows_in_lines
from headrace.model.backends.interface import BACKENDS
from headrace.model.instructions import CACHE_LINE, LANES
from headrace.model.network import float_logits
from headrace.model.quantizing import Bits, quantize
from tests.support.interpreted import Interpreted
from tests.support.networks import TEXT, VOCABULARY, random_artifact, random_network

SHAPES = {
    "default": {},
    "one label": {"labels": 1},
    "many labels, more than a register": {"labels": 150},
    "filters in whole registers": {"filters": 64},
    "other widths": {"widths": (1, 3, 5, 7)},
    "one token": {"max_tokens": 1},
    "convolution alone": {"blend": 1.0},
    "wide part alone": {"blend": 0.0},
    "tiny weights": {"scale": 1e-6},
    "huge weights": {"scale": 1e4},
    "four bits": {"bits": Bits(4, 4), "labels": 5},
    "realistic": {
        "labels": 4,
        "dimensions": 128,
        "filters": 96,
        "max_tokens": 256,
        "extra_words": 3000,
        "extra_bigrams": 5000,
    },
}
TEXTS = [
    text.encode()
    for text in (
        "",
        " \n\t",
        "good",
        "the good film, not bad!",
        "unknown words only here",
        "你好，这部电影不错",
        "the",
        "the good",
        "the good bad",
        TEXT,
        TEXT * 40,
        "a" * 5000,
        "😀" * 300,
        "mañana DON’T don't\0\0 good",
    )
]


# A benchmark's stand-in, which computes nothing, is no backend in the sense of this suite.
HERE = tuple(name for name in BACKENDS if name != "constant" and (name != "cuda" or torch.cuda.is_available()))
INTERPRETED = "cuda-interpreted"
EXACT = (*HERE, INTERPRETED)


def opening(name: str, artifact: Artifact) -> Backend:
    return Interpreted(artifact) if name == INTERPRETED else open_backend(name, artifact)


@cache
def artifact_of(shape: str) -> Artifact:
    return random_artifact(7, **SHAPES[shape])


@cache
def opened(name: str, shape: str) -> Backend:
    return opening(name, artifact_of(shape))


def pairs(*quick: str) -> list[object]:
    """Every backend with every shape; the interpreted one with others than ``quick`` is slow."""
    return [
        pytest.param(name, shape, marks=pytest.mark.slow if name == INTERPRETED and shape not in quick else ())
        for name in EXACT
        for shape in sorted(SHAPES)
    ]


@pytest.mark.parametrize(("name", "shape"), pairs(*SHAPES))
def test_logits_are_the_references_integers(name: str, shape: str) -> None:
    expected = opened("reference", shape).logits(TEXTS)
    assert expected.dtype == np.int64
    assert np.array_equal(opened(name, shape).logits(TEXTS), expected)


@pytest.mark.parametrize(("name", "shape"), pairs("default"))
def test_no_answer_depends_on_batch_size_order_or_neighbours(name: str, shape: str) -> None:
    backend = opened(name, shape)
    together = backend.logits(TEXTS)
    for size in (1, 2, 5):
        parts = [backend.logits(TEXTS[first : first + size]) for first in range(0, len(TEXTS), size)]
        assert np.array_equal(np.concatenate(parts), together)
    order = np.random.default_rng(0).permutation(len(TEXTS))
    assert np.array_equal(backend.logits([TEXTS[place] for place in order]), together[order])


@pytest.mark.parametrize(("name", "shape"), pairs("four bits"))
def test_classify_gives_label_and_share_of_the_largest_logit(name: str, shape: str) -> None:
    backend = opened(name, shape)
    logits = backend.logits(TEXTS)
    shown = logits * backend.artifact.network.unit
    shares = np.exp(shown - shown.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    answers = backend.classify(TEXTS, ranking=2)
    assert answers.labels.tolist() == logits.argmax(axis=1).tolist()
    assert answers.labels.dtype == np.int32
    np.testing.assert_allclose(answers.scores, shares.max(axis=1), rtol=1e-5)
    ranking = np.argsort(-logits, axis=1, kind="stable")[:, :2]
    assert answers.ranking.tolist() == ranking.tolist()
    np.testing.assert_allclose(answers.ranking_scores, np.take_along_axis(shares, ranking, 1), rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize(("name", "shape"), pairs("default"))
def test_a_batch_without_texts_has_no_answers(name: str, shape: str) -> None:
    backend = opened(name, shape)
    assert backend.logits([]).shape == (0, len(backend.artifact.labels))
    assert len(backend.classify([]).labels) == 0


@pytest.mark.parametrize(("name", "shape"), pairs("default"))
def test_a_ranking_is_no_longer_than_there_are_labels(name: str, shape: str) -> None:
    backend = opened(name, shape)
    labels = len(backend.artifact.labels)
    answers = backend.classify(TEXTS[:3], ranking=labels + 5)
    assert answers.ranking.shape == answers.ranking_scores.shape == (3, labels)
    assert sorted(answers.ranking[0].tolist()) == list(range(labels))


@pytest.mark.parametrize("name", EXACT)
def test_a_tie_goes_to_the_lowest_label(name: str) -> None:
    network = random_network(3, labels=5)
    # Labels 1 and 3 are the same and above all others; 0, 2 and 4 are the same too.
    twins = {
        field: np.ascontiguousarray(np.take(getattr(network, field), [0, 1, 0, 1, 0], axis=axis))
        for field, axis in (("head", 0), ("wide_words", 1), ("wide_bigrams", 1))
    }
    bias = np.array([0, 1e6, 0, 1e6, 0], np.float32)
    tied = replace(network, **twins, head_bias=bias, wide_bias=bias)
    backend = opening(name, assemble(quantize(tied), About()))
    answers = backend.classify(TEXTS, ranking=5)
    assert set(answers.labels.tolist()) == {1}
    assert answers.ranking.tolist() == [[1, 3, 0, 2, 4]] * len(TEXTS)


@pytest.mark.parametrize("name", EXACT)
def test_words_beyond_max_tokens_change_nothing(name: str) -> None:
    backend = opened(name, "default")
    cut = " ".join(VOCABULARY[: backend.artifact.network.max_tokens])
    texts = [cut.encode(), f"{cut} good bad !".encode(), cut.encode() + b" film" * 1000]
    logits = backend.logits(texts)
    assert np.array_equal(logits[0], logits[1])
    assert np.array_equal(logits[0], logits[2])


@pytest.mark.parametrize(("names", "examples"), [(HERE, 60), ((INTERPRETED,), 6)])
def test_any_text_has_the_references_integers(names: tuple[str, ...], examples: int) -> None:
    @settings(deadline=None, max_examples=examples)
    @given(
        texts=st.lists(st.text(max_size=30) | st.lists(st.sampled_from(VOCABULARY)).map(" ".join), max_size=6),
        shape=st.sampled_from(["default", "other widths", "one token", "many labels, more than a register"]),
    )
    def check(texts: list[str], shape: str) -> None:
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        expected = opened("reference", shape).logits(encoded)
        for name in names:
            assert np.array_equal(opened(name, shape).logits(encoded), expected), name

    check()


@pytest.mark.parametrize(("names", "examples"), [(HERE, 25), ((INTERPRETED,), 5)])
def test_any_network_has_the_references_integers(names: tuple[str, ...], examples: int) -> None:
    @settings(deadline=None, max_examples=examples)
    @given(
        seed=st.integers(0, 2**32 - 1),
        labels=st.integers(1, 20),
        filters=st.integers(1, 40),
        widths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
        max_tokens=st.integers(1, 30),
        blend=st.floats(0, 1),
        scale=st.floats(1e-3, 1e3),
        bits=st.builds(Bits, st.sampled_from([4, 8]), st.sampled_from([4, 8])),
    )
    def check(seed: int, **shape: object) -> None:
        artifact = random_artifact(seed, **shape)
        expected = open_backend("reference", artifact).logits(TEXTS)
        for name in names:
            assert np.array_equal(opening(name, artifact).logits(TEXTS), expected), name

    check()


@given(words=st.integers(1, 5), taps=st.integers(1, 70), filters=st.integers(1, 3), labels=st.integers(1, 5))
def test_a_words_row_is_whole_cache_lines_with_taps_and_weights(words, taps, filters, labels) -> None:
    tables = np.arange(words * taps * filters).astype(np.int8).reshape(words, taps, filters)
    wide = np.arange(words * 8 * labels).astype(np.int16).reshape(words, -1)
    flat, weights, length = rows_in_lines(tables, wide)

    assert length % CACHE_LINE == 0
    assert flat.ctypes.data % CACHE_LINE == 0
    # A vector that begins with the last filter of the last row ends inside.
    assert len(flat) >= (words - 1) * length + taps * filters - 1 + LANES
    first_weight = -(-taps * filters // 2)
    assert np.shares_memory(flat, weights)
    for word in range(words):
        row = flat[word * length :][:length]
        assert np.array_equal(row[: taps * filters], tables[word].reshape(-1))
        assert np.array_equal(row.view(np.int16)[first_weight:][: 8 * labels], wide[word])
        assert np.array_equal(weights[word * length // 2 :][: 8 * labels], wide[word])


@pytest.mark.parametrize("name", EXACT)
def test_integers_stay_near_the_float_network(name: str) -> None:
    network = random_network(11, dimensions=64, filters=32, labels=4)
    artifact = assemble(quantize(network), About())
    expected = float_logits(network, [text.decode() for text in TEXTS])
    found = opening(name, artifact).logits(TEXTS) * artifact.network.unit
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_share_a_batch_without_changing_it(threads: int) -> None:
    alone = opened("cpu", "realistic")
    shared = open_backend("cpu", alone.artifact, threads=threads)
    for count in (1, 2, 3, len(TEXTS)):
        assert np.array_equal(shared.logits(TEXTS[:count]), alone.logits(TEXTS[:count]))
    assert shared.classify([b""] * 10).labels.tolist() == alone.classify([b""] * 10).labels.tolist()


def test_calls_from_several_threads_do_not_meet() -> None:
    backend = opened("cpu", "realistic")
    expected = backend.logits(TEXTS)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: backend.logits(TEXTS), range(40)):
            assert np.array_equal(found, expected)


@pytest.mark.skipif("HEADRACE_DATA" not in os.environ, reason="HEADRACE_DATA names no folder of data sets")
def test_the_integers_are_equal_on_every_shared_data_set() -> None:
    for path in sorted(Path(os.environ["HEADRACE_DATA"]).glob("*/test.jsonl")):
        texts = [line.encode() for line in path.read_text("utf-8").splitlines()[:300]]
        expected = opened("reference", "default").logits(texts)
        for name in HERE:
            assert np.array_equal(opened(name, "default").logits(texts), expected), (name, path)


def test_an_unknown_backend_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ValueError, match=r"'gpu'.*cpu.*reference"):
        open_backend("gpu", artifact_of("default"))
