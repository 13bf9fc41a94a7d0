from hypothesis import given
from hypothesis import strategies as st

from headrace.learning.data.files import Rows
from headrace.learning.data.validation import NO_WORDS, clean, text_keys

WORDS = st.lists(st.sampled_from(["good", "Good", "bad", "影", "片", " ", "\t"]), max_size=3).map(" ".join)


def cleaned(*pairs: tuple[str, str]):
    return clean(Rows(tuple(text for text, _ in pairs), tuple(label for _, label in pairs)))


def test_rows_without_words_or_without_label_are_empty():
    result = cleaned(("", "a"), (" \t\u200b", "a"), ("fine", " "), ("kept", "a"))

    assert (result.rows.texts, result.empty) == (("kept",), 3)


def test_texts_that_differ_only_in_case_and_spacing_are_duplicates_and_the_first_stays():
    result = cleaned(("Good  film", "a"), ("good film", "a"), ("good\nFILM ", "a"))

    assert (result.rows.texts, result.duplicate) == (("Good  film",), 2)


def test_a_text_with_two_labels_and_no_majority_is_dropped_whole():
    result = cleaned(("so so", "good"), ("so so", "bad"), ("other", "bad"))

    assert (result.rows.texts, result.conflicting, result.duplicate) == (("other",), 2, 0)


def test_the_label_of_more_than_half_of_equal_texts_is_taken():
    result = cleaned(("ok", "spam"), ("ok", "ham"), ("OK", "ham"))

    assert result.rows == Rows(("ok",), ("ham",))
    assert (result.conflicting, result.duplicate) == (1, 1)


def test_blanks_around_a_label_do_not_make_another_class():
    assert cleaned(("one", "ham "), ("two", "ham")).rows.labels == ("ham", "ham")


@given(st.lists(st.tuples(WORDS, st.sampled_from(["a", "b", ""])), max_size=30))
def test_every_row_is_kept_or_counted_once_and_kept_texts_are_all_different(pairs):
    result = cleaned(*pairs)

    assert len(result.rows) + result.empty + result.duplicate + result.conflicting == len(pairs)
    assert len(set(result.keys)) == len(result.keys) == len(result.rows)
    assert list(result.keys) == text_keys(result.rows.texts)
    assert NO_WORDS not in result.keys
