import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.training.report import Confusion, compare

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


def test_a_class_that_is_only_answered_counts_in_macro_f1():
    report = compare(("a", "a"), ("a", "x"))

    assert [one.label for one in report.classes] == ["a", "x"]
    assert report.macro_f1 == pytest.approx((2 / 3) / 2)


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
