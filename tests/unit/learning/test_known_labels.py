"""What the trainer knows of the labels: usable ones, refused ones, and what changed since a snapshot."""

from hypothesis import given
from hypothesis import strategies as st

from headrace.learning.data.files import Rows
from headrace.learning.data.validation import KnownLabels, clean, text_keys


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
def test_the_trainer_refuses_and_counts_by_the_rule_by_which_training_takes_rows(actions):
    known, last = KnownLabels(), {}
    for id_, text, label in actions:
        if label is None:
            last.pop(id_, None)
            known.remove(id_.encode(), snapped=False)
        else:
            last[id_] = text, label
            fault = take(known, id_, text, label)
        rows = Rows(tuple(text for text, _ in last.values()), tuple(label for _, label in last.values()))
        cleaned = clean(rows)
        learnt = dict(zip(cleaned.rows.texts, cleaned.rows.labels, strict=True))
        if label is not None:
            assert fault == (None if learnt.get(text) == label else "conflicting-label")
        assert {text: known.learnt(text_keys([text])[0]) for text in rows.texts} == {
            text: learnt.get(text) for text in rows.texts
        }
        assert (len(known), known.usable) == (len(last), len(learnt))


def test_the_majority_of_equal_texts_is_learnt_and_only_the_others_are_refused_with_the_votes():
    known = KnownLabels()
    assert [take(known, id_, "good film", "pos") for id_ in "ab"] == [None, None]
    fault = known.take(b"c", text_keys(["Good  film"])[0], "neg", snapped=False)
    assert (fault.code, known.usable) == ("conflicting-label", 1)
    assert "'neg' is that of 1 of 3 equal texts, 'pos' of 2" in fault.message
    # Its second vote is no majority yet, and takes away the other's; the third is one.
    assert take(known, "d", "good film", "neg") == "conflicting-label"
    assert (known.usable, len(known)) == (0, 4)
    assert take(known, "e", "good film", "neg") is None
    assert known.usable == 1


def test_labels_are_known_as_what_they_are_learnt_as_and_nobody_is_blamed_for_a_retired_one():
    known = KnownLabels(allowed=["economy", "sport"], rules={"economy": "business", "gossip": None})
    assert take(known, "a", "rates rise", "economy") is None
    assert take(known, "b", "Rates  rise", "business") is None, "they are one label now"
    assert take(known, "c", "who wore what", "sport") is None
    assert take(known, "c", "who wore what", "gossip") is None, "it was given before the rule"
    assert (known.usable, len(known)) == (1, 2)
    (key,) = text_keys(["rates rise"])
    assert known.learnt(key) == "business"
