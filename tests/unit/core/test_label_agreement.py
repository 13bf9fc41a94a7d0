"""How far people agree."""

import pytest

from headrace.core.label_agreement import kappa_of, pairs_of


def test_kappa_is_that_of_the_textbook() -> None:
    # Cohen's kappa of the table 20, 5, 10, 15: 0.4 (as in the encyclopedias).
    both = [("yes", "yes")] * 20 + [("yes", "no")] * 5 + [("no", "yes")] * 10 + [("no", "no")] * 15
    assert kappa_of(both) == pytest.approx(0.4)


def test_kappa_says_nothing_of_no_texts_or_one_label() -> None:
    assert kappa_of([]) is None
    assert kappa_of([("a", "a")] * 3) is None


def test_each_pair_of_people_counts_the_texts_that_both_labelled() -> None:
    pairs = pairs_of([{"ana": "x", "ben": "x"}, {"ben": "x", "ana": "y", "cy": "y"}, {"ana": "x"}])
    assert [(one.a, one.b, one.texts, one.equal) for one in pairs] == [
        ("ana", "ben", 2, 1),
        ("ana", "cy", 1, 1),
        ("ben", "cy", 1, 0),
    ]
