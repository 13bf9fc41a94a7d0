"""Words and their hashes: the kernel against the plain definition, over all of Unicode."""

import itertools
import unicodedata

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.model import characters, hashing, words
from headrace.model.network import pair_hashes

# All of Unicode, and beside it the places where words begin and end, which random text seldom visits.
anything = st.text() | st.text(st.sampled_from("ab Z_'’.,\0\n你好かカ한é\u0301😀\ufe0fİΣß\ud800\U000e0100\U0002a6d6"))


def assert_kernel_agrees(text: str, max_tokens: int) -> None:
    hashes, starts = hashing.hash_strings([text], max_tokens)
    assert starts.tolist() == [0, len(hashes)]
    assert hashes.tolist() == [words.word_hash(word) for word in words.split_words(text, max_tokens)]


@settings(deadline=None)  # the first call compiles
@given(anything, st.integers(1, 12))
@example("", 1)
@example("你好 world", 2)
@example("don't stop", 1)
def test_the_kernel_hashes_the_words_of_the_plain_definition(text: str, max_tokens: int) -> None:
    assert_kernel_agrees(text, max_tokens)


@settings(deadline=None)  # the first call compiles
@given(st.lists(anything, max_size=6))
def test_texts_hashed_together_are_hashed_as_if_alone(texts: list[str]) -> None:
    hashes, starts = hashing.hash_strings(texts, 50)
    for text, start, end in zip(texts, starts[:-1], starts[1:], strict=True):
        assert hashes[start:end].tolist() == words.hash_words(text, 50).tolist()


def test_every_code_point_alone_is_hashed_as_defined() -> None:
    texts = [chr(code) for code in range(characters.CODE_POINTS)]
    hashes, starts = hashing.hash_strings(texts, 4)
    table = characters.table()[: characters.CODE_POINTS]
    assert np.array_equal(np.diff(starts), (table & 3) != characters.SEPARATOR)
    for code in range(0, characters.CODE_POINTS, 97):
        assert hashes[starts[code] : starts[code + 1]].tolist() == words.hash_words(texts[code], 4).tolist()


@settings(deadline=None)  # the first call compiles
@given(st.binary(max_size=40))
def test_malformed_bytes_never_give_more_words_than_bytes(data: bytes) -> None:
    joined, offsets = hashing.join_texts([data, b"next"])
    hashes, starts = hashing.hash_texts(joined, offsets, 100)
    assert starts[1] <= len(data)
    assert hashes[starts[1] :].tolist() == [words.word_hash("next")]


@settings(deadline=None)  # the first call compiles
@given(st.lists(st.integers(0, 2**64 - 1), max_size=5))
def test_bigrams_are_hashed_as_defined_wherever_they_are_hashed(hashes: list[int]) -> None:
    array = np.array(hashes, np.uint64)
    plain = [words.bigram_hash(first, second) for first, second in itertools.pairwise(hashes)]
    assert pair_hashes(array).tolist() == plain
    compiled = [int(hashing.bigram(first, second)) for first, second in itertools.pairwise(array)]
    assert compiled == plain


def test_the_order_of_a_bigrams_words_counts() -> None:
    first, second = words.word_hash("not"), words.word_hash("good")
    assert words.bigram_hash(first, second) != words.bigram_hash(second, first)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \t\r\n\0", []),
        ("Hello, World!", ["hello", ",", "world", "!"]),
        ("don't DON’T", ["don't", "don't"]),
        ("snake_case 3rd ½", ["snake_case", "3rd", "½"]),
        ("你好 world", ["你", "好", "world"]),
        ("カタかな", ["カ", "タ", "か", "な"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("👍🏽 ❤\ufe0f", ["👍", "🏽", "❤"]),
        ("İstanbul ΟΔΟΣ straße", ["istanbul", "οδοσ", "straße"]),
        ("हिन्दी", ["हिन्दी"]),
        ("a\ud800b", ["a", "b"]),
    ],
)
def test_a_text_is_cut_into_words_as_stated(text: str, expected: list[str]) -> None:
    assert words.split_words(text) == expected
    assert_kernel_agrees(text, 100)


def test_texts_are_not_normalized() -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    assert unicodedata.normalize("NFKC", decomposed) == composed
    assert words.split_words(composed) != words.split_words(decomposed)
    assert words.split_words("ＡＢＣ") == ["ａｂｃ"]
    assert words.split_words("ﬁne") == ["ﬁne"]


def test_the_tables_digest_is_the_one_that_artifacts_were_made_with() -> None:
    # A new digest refuses every artifact that exists: change it only with the format's version.
    assert characters.digest() == "156fcf0d181f27e129079a5ff7cc0775e27d57c8519404ed25bacad72dc3cc35"


@pytest.mark.skipif(unicodedata.unidata_version != "14.0.0", reason="the tables were generated from Unicode 14.0.0")
def test_the_checked_in_tables_are_what_their_generator_writes() -> None:
    assert np.array_equal(characters.parse(characters.generate()), characters.table())


@pytest.mark.parametrize(
    ("word", "expected"), [("", 0xEFD01F60BA992926), ("headrace", 0x19AA6F4F5820E875), ("好", 0x267E7DC846AD4DD0)]
)
def test_word_hashes_stay_what_they_are(word: str, expected: int) -> None:
    assert words.word_hash(word) == expected
