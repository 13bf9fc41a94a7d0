"""What the trainer knows of the labels: usable ones, refused ones, and what changed since a snapshot."""

from hypothesis import given
from hypothesis import strategies as st

from headrace.training.text_keys import text_keys
from headrace.training.trainer.known_labels import KnownLabels


def take(known: KnownLabels, id_: str, text: str, label: str, *, snapped: bool = False) -> str | None:
    (key,) = text_keys([text])
    fault = known.take(id_.encode(), key, label, snapped=snapped)
    return None if fault is None else fault.code


def test_the_last_label_of_an_id_counts_and_an_equal_one_is_no_change():
    known = KnownLabels()
    assert take(known, "a", "good film", "pos", snapped=True) is None
    assert (len(known), known.new) == (1, 0)
    take(known, "a", "Good  FILM", "pos")
    assert (len(known), known.new) == (1, 0)
    take(known, "a", "good film", "neg")
    assert (len(known), known.new) == (1, 1)


def test_a_label_that_cannot_be_learned_from_is_refused_and_takes_the_place_of_the_one_before():
    known = KnownLabels(allowed=["pos", "neg"])
    for text, label, code in (
        ("good", "meh", "unknown-label"),
        ("good", " ", "empty-label"),
        (" \t", "pos", "empty-text"),
    ):
        assert take(known, "a", "good", " pos ") is None
        assert take(known, "a", text, label) == code
        assert len(known) == 0


def test_an_equal_text_under_another_id_and_label_conflicts_until_one_of_them_goes():
    known = KnownLabels()
    assert take(known, "a", "good film", "pos") is None
    assert take(known, "b", "good film", "pos") is None
    assert take(known, "c", "GOOD film", "neg") == "conflicting-label"
    assert len(known) == 3
    known.remove(b"c", snapped=False)
    assert take(known, "d", "good film", "pos") is None


def test_names_that_are_spelled_differently_are_one_label():
    known = KnownLabels(allowed=["re\u0301el", "true"])
    assert take(known, "a", "good film", "r\u00e9el") is None
    assert take(known, "b", "good film", "\u3000re\u0301el\ufeff") is None
    assert take(known, "c", "other film", "True") is None


def test_an_erasure_counts_once_the_snapshot_holds_the_text():
    known = KnownLabels()
    take(known, "a", "good", "pos")
    known.begin_snapshot()
    known.remove(b"a", snapped=False)
    known.remove(b"a", snapped=False)
    known.remove(b"never there", snapped=False)
    assert (len(known), known.new, known.erased) == (0, 0, 1)
    take(known, "a", "good", "pos")
    assert (known.new, known.erased) == (1, 0)


ACTIONS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["one", "two"]), st.sampled_from(["x", "y", None])), max_size=30
)


@given(ACTIONS)
def test_what_is_known_is_the_last_record_of_each_id_and_a_conflict_is_two_labels_of_one_text(actions):
    known, last = KnownLabels(), {}
    for id_, text, label in actions:
        if label is None:
            last.pop(id_, None)
            known.remove(id_.encode(), snapped=False)
            continue
        last[id_] = text, label
        others = {of for of_text, of in last.values() if of_text == text} - {label}
        assert (take(known, id_, text, label) == "conflicting-label") == bool(others)
        assert len(known) == len(last)
