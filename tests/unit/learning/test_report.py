import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.learning.evaluate import Confusion, Report, agreement, compare, share_interval

LABEL = st.sampled_from("abcd")


def test_precision_recall_and_f1_of_a_worked_example():
    truth, answers = tuple("aaaabbc"), tuple("aaabbcb")
    report = compare(truth, answers)
    a, b, c = report.classes

    assert report.accuracy == pytest.approx(4 / 7)
    assert (a.precision, a.recall, a.f1, a.support, a.right) == (1.0, 0.75, pytest.approx(6 / 7), 4, 3)
    assert (b.precision, b.recall, b.f1, b.support, b.right) == (pytest.approx(1 / 3), 0.5, pytest.approx(0.4), 2, 1)
    assert (c.precision, c.recall, c.f1) == (0.0, 0.0, 0.0)
    assert report.macro_f1 == pytest.approx((6 / 7 + 0.4) / 3)
    assert report.confusions == tuple(
        Confusion(label=label, predicted=other, count=1) for label, other in ("ab", "bc", "cb")
    )


def test_a_class_that_is_only_answered_is_named_and_has_no_f1():
    report = compare(("a", "a"), ("a", "x"))
    a, x = report.classes

    assert (a.label, x.label) == ("a", "x")
    assert (x.precision, x.recall, x.f1, x.support) == (0.0, None, None, 0)
    assert report.macro_f1 == a.f1 == pytest.approx(2 / 3)


def test_what_can_not_be_measured_is_null_in_json():
    report = compare(("a", "b"), ("a", "a"), learnt=("a", "b", "rare"))
    told = msgspec.json.decode(msgspec.json.encode(report))

    assert [(one["label"], one["precision"], one["recall"]) for one in told["classes"]] == [
        ("a", 0.5, 1.0),
        ("b", None, 0.0),
    ]
    assert told["untested"] == ["rare"]
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


@pytest.mark.parametrize(
    ("count", "rows", "low", "high"),
    # As Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_of_a_share_is_wilsons(count, rows, low, high):
    assert share_interval(count, rows) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10_000), st.data())
def test_the_interval_of_a_share_holds_what_was_seen_and_is_never_a_point(rows, data):
    count = data.draw(st.integers(0, rows))
    low, high = share_interval(count, rows)

    assert 0 <= low <= count / rows <= high <= 1
    assert low < high


@pytest.mark.parametrize(("rows", "little"), [(1, True), (9, True), (15, True), (16, False), (500, False)])
def test_few_rows_tell_little_even_when_all_are_right(rows, little):
    assert compare("a" * rows, "a" * rows).tells_little is little


def test_an_agreement_of_nothing_is_none():
    with pytest.raises(ValueError, match="no answers"):
        agreement((), ())


def test_the_most_frequent_mistakes_come_first_and_are_bounded():
    truth, answers = "a" * 6, "bbbccd"

    assert [(one.predicted, one.count) for one in compare(truth, answers, most_confusions=2).confusions] == [
        ("b", 3),
        ("c", 2),
    ]


@pytest.mark.parametrize(("truth", "answers"), [((), ()), (("a",), ("a", "b"))])
def test_nothing_to_compare_is_refused(truth, answers):
    with pytest.raises(ValueError, match="can't be compared"):
        compare(truth, answers)


@given(st.lists(st.tuples(LABEL, LABEL), min_size=1, max_size=60))
def test_supports_rights_and_mistakes_add_up(pairs):
    report = compare([truth for truth, _ in pairs], [answer for _, answer in pairs])

    right = sum(one.right for one in report.classes)
    assert sum(one.support for one in report.classes) == report.rows == len(pairs)
    assert right + sum(one.count for one in report.confusions) == len(pairs)
    assert report.accuracy == pytest.approx(right / len(pairs))
