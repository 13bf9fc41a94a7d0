"""Words and their hashes: the kernel against the plain definition, over all of Unicode."""

import itertools
import unicodedata

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.model import characters, words
from headrace.model.network import pair_hashes
from tests.support import character_tables

# All of Unicode, and beside it the places where words begin and end, which random text seldom visits.
UNSEEN = "\u00ad\u200b\u200d\u034f\ufe0f\U000e0100"
CLUSTERS = "เกำ่ខ្ស\u1112\u1161\u0344\u0301\u0323"
anything = st.text() | st.text(st.sampled_from("ab1 Z_'’.,\0\n你好かカ한é😀İΣß\ud800\U0002a6d6" + UNSEEN + CLUSTERS))


def assert_kernel_agrees(text: str, max_tokens: int) -> None:
    hashes, starts = words.hash_strings([text], max_tokens)
    assert starts.tolist() == [0, len(hashes)]
    assert hashes.tolist() == [words.word_hash(word) for word in words.split_words(text, max_tokens)]


@settings(deadline=None)  # the first call compiles
@given(anything, st.integers(1, 12))
@example("", 1)
@example("你好 world", 2)
@example("don't stop", 1)
def test_the_kernel_hashes_the_words_of_the_plain_definition(text: str, max_tokens: int) -> None:
    assert_kernel_agrees(text, max_tokens)


@given(anything, st.integers(0, 12))
def test_the_first_words_of_a_text_are_the_first_of_all(text: str, count: int) -> None:
    assert words.split_words(text, count) == words.split_words(text)[:count]


def plain_hashes(text: str, max_tokens: int) -> list[int]:
    return [words.word_hash(word) for word in words.split_words(text, max_tokens)]


@settings(deadline=None)  # the first call compiles
@given(st.lists(anything, max_size=6))
def test_texts_hashed_together_are_hashed_as_if_alone(texts: list[str]) -> None:
    hashes, starts = words.hash_strings(texts, 50)
    for text, start, end in zip(texts, starts[:-1], starts[1:], strict=True):
        assert hashes[start:end].tolist() == plain_hashes(text, 50)


def test_every_code_point_alone_is_hashed_as_defined() -> None:
    texts = [chr(code) for code in range(characters.CODE_POINTS)]
    hashes, starts = words.hash_strings(texts, 4)
    table = characters.table()[: characters.CODE_POINTS]
    alone = np.array([len(words.compose(text)) == 1 for text in texts])
    is_word = ~np.isin(table & 7, [characters.SEPARATOR, characters.DROPPED])
    same = np.array([words.compose(text) == text for text in texts])
    assert np.array_equal(np.diff(starts)[alone & same], is_word[alone & same])
    for code in range(0, characters.CODE_POINTS, 97):
        assert hashes[starts[code] : starts[code + 1]].tolist() == plain_hashes(texts[code], 4)


@settings(deadline=None)  # the first call compiles
@given(st.binary(max_size=40))
def test_malformed_bytes_never_give_more_words_than_bytes(data: bytes) -> None:
    joined, offsets = words.join_texts([data, b"next"])
    hashes, starts = words.hash_texts(joined, offsets, 100)
    assert starts[1] <= len(data)
    assert hashes[starts[1] :].tolist() == [words.word_hash("next")]


@settings(deadline=None)  # the first call compiles
@given(st.lists(st.integers(0, 2**64 - 1), max_size=5))
def test_bigrams_are_hashed_as_defined_wherever_they_are_hashed(hashes: list[int]) -> None:
    array = np.array(hashes, np.uint64)
    plain = [words.bigram_hash(first, second) for first, second in itertools.pairwise(hashes)]
    assert pair_hashes(array).tolist() == plain
    compiled = [int(words.bigram(first, second)) for first, second in itertools.pairwise(array)]
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
        ("สวัสดีครับ", ["ส", "วั", "ส", "ดี", "ค", "รั", "บ"]),
        ("เด็กไทย ๑๒ กa1", ["เด็", "ก", "ไท", "ย", "๑๒", "ก", "a1"]),
        ("น้ำ", ["น้ำ"]),
        ("ພາສາລາວ", ["ພາ", "ສາ", "ລາ", "ວ"]),
        ("ខ្មែរ", ["ខ្មែ", "រ"]),
        ("မြန်မာ", ["မြ", "န်", "မာ"]),
        ("ꦗꦮ", ["ꦗ", "ꦮ"]),
        ("བོད་ཡིག", ["བོད", "ཡིག"]),
        ("ꀀꀁ", ["ꀀ", "ꀁ"]),
        ("co\u00adop\u200cer\ufeffate\u2060d", ["cooperated"]),
        ("a\u200bb", ["a", "b"]),
        ("\u202bab\u202c", ["ab"]),
        ("👨\u200d👩\u200d👧", ["👨", "👩", "👧"]),
        ("می\u200cخواهم", ["میخواهم"]),
    ],
)
def test_a_text_is_cut_into_words_as_stated(text: str, expected: list[str]) -> None:
    assert words.split_words(text) == expected
    assert_kernel_agrees(text, 100)


@pytest.mark.parametrize("text", ["café", "Việt Nam", "한국어 문장", "がぎ", "क़लम", "Å", "ǭ ệ"])
def test_a_text_has_the_same_words_in_every_canonical_form(text: str) -> None:
    expected = words.split_words(unicodedata.normalize("NFC", text))
    decomposed = unicodedata.normalize("NFD", text)
    for form in (text, decomposed, decomposed + " x" * 600):
        assert words.split_words(form)[: len(expected)] == expected
        assert_kernel_agrees(form, 700)


def test_what_a_newer_unicode_composes_has_no_say() -> None:
    # Unassigned in the frozen tables, so a separator: what is behind it composes by itself.
    assert words.split_words("e\U000113c5\u0301 e\u0301") == ["e", "\u0301", "\u00e9"]


def test_no_text_that_composing_changes_is_passed_over() -> None:
    every = [chr(code) for code in range(characters.CODE_POINTS) if not 0xD800 <= code < 0xE000]
    pairs = (unicodedata.decomposition(character).split() for character in every)
    joining = {chr(int(pair[1], 16)) for pair in pairs if len(pair) == 2 and not pair[0].startswith("<")}
    joining |= {chr(code) for code in range(0x1161, 0x11C3)}
    for character in every:
        alone = unicodedata.normalize("NFC", character) == character and not unicodedata.combining(character)
        if unicodedata.category(character) != "Cn" and (not alone or character in joining):
            assert characters.may_change()[ord(character)], hex(ord(character))


def test_a_run_of_marks_that_no_language_has_is_left_as_it_is() -> None:
    bomb = "e" + "\u0301\u0323" * 20_000
    assert words.compose(bomb) == bomb
    assert words.compose("e" + "\u0301" * 31) == "e" + "\u0301" * 31


def test_compatibility_forms_stay_apart() -> None:
    assert words.split_words("ＡＢＣ") == ["ａｂｃ"]
    assert words.split_words("ﬁne") == ["ﬁne"]


def test_the_tables_digest_is_the_one_that_artifacts_were_made_with() -> None:
    # A new digest refuses every artifact that exists: other tables are another rule.
    assert characters.digest(2) == "f9477bee094a2898edc73b7f71f8fd5b31b62ab3c5341598b3bba3ed55e1266f"
    assert characters.digest(1) == "156fcf0d181f27e129079a5ff7cc0775e27d57c8519404ed25bacad72dc3cc35"


@pytest.mark.skipif(unicodedata.unidata_version != "14.0.0", reason="the tables were generated from Unicode 14.0.0")
def test_the_checked_in_tables_are_what_their_generator_writes() -> None:
    assert np.array_equal(characters.parse(character_tables.generate()), characters.table())


@pytest.mark.parametrize(
    ("word", "expected"), [("", 0xEFD01F60BA992926), ("headrace", 0x19AA6F4F5820E875), ("好", 0x267E7DC846AD4DD0)]
)
def test_word_hashes_stay_what_they_are(word: str, expected: int) -> None:
    assert words.word_hash(word) == expected


@given(anything)
def test_a_words_place_is_where_it_stands_in_the_composed_text(text: str) -> None:
    composed, end = characters.compose(text), 0
    for found in words.find_words(text):
        assert end <= found.begin < found.end <= len(composed)
        assert "".join(words.split_words(composed[found.begin : found.end])) == found.word
        end = found.end
