"""Confident learning: the estimate of the paper, planted mistakes, and scores of fits that have not learnt the row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.files import DatasetError
from headrace.learning import suspects
from headrace.learning.data.files import Rows
from headrace.learning.fit.hyperparameters import Recipe
from headrace.learning.suspects import estimate_joint, find_suspects, out_of_fold


@st.composite
def scored(draw):
    """Scores of n rows of C classes, and the labels given."""
    classes, rows = draw(st.integers(2, 5)), draw(st.integers(1, 40))
    randomness = np.random.default_rng(draw(st.integers(0, 2**32)))
    scores = randomness.dirichlet(np.full(classes, draw(st.sampled_from((0.1, 1.0, 5.0)))), rows).astype(np.float32)
    return scores, randomness.integers(0, classes, rows)


def by_the_book(scores, labels):
    """The calibrated joint of the paper (their equations 1 to 3), row by row; in rows, by (given, true)."""
    classes = scores.shape[1]
    means = [np.mean(scores[labels == one, one]) if (labels == one).any() else np.inf for one in range(classes)]
    counts = np.zeros((classes, classes))
    for row, label in zip(scores, labels, strict=True):
        reaching = [one for one in range(classes) if row[one] >= means[one] - 1e-6]
        if reaching:
            counts[label, max(reaching, key=lambda one: row[one])] += 1
    of_given = counts.sum(axis=1, keepdims=True)
    return np.divide(counts, of_given, where=of_given > 0, out=np.zeros_like(counts)) * np.bincount(
        labels, minlength=classes
    ).reshape(-1, 1)


@given(scored())
def test_the_joint_is_that_of_the_paper(case) -> None:
    scores, labels = case
    expected, found = by_the_book(scores, labels), estimate_joint(scores, labels)
    np.testing.assert_allclose(found.wrong, expected.sum(axis=1) - np.diag(expected), atol=1e-9)
    shares = np.zeros_like(expected)
    for pair, share in found.shares.items():
        shares[pair] = share
    np.testing.assert_allclose(shares * len(labels), expected - np.diag(np.diag(expected)), atol=1e-9)


@given(st.integers(2, 6), st.integers(20, 150), st.integers(0, 2**32), st.floats(0, 0.3))
def test_of_scores_that_know_the_truth_the_planted_labels_are_found_and_no_others(classes, rows, seed, share) -> None:
    randomness = np.random.default_rng(seed)
    true = randomness.integers(0, classes, rows)
    labels = true.copy()
    wrong = randomness.random(rows) < share
    # A class that nobody was given can't be known.
    wrong[[int(np.argmax(true == one)) for one in range(classes)]] = False
    labels[wrong] = (true[wrong] + randomness.integers(1, classes, int(wrong.sum()))) % classes
    scores = np.full((rows, classes), 0.1 / (classes - 1), np.float32)
    scores[np.arange(rows), true] = 0.9
    found = find_suspects(scores, labels)
    assert {one.row for one in found} == set(np.flatnonzero(wrong).tolist())
    assert all((one.given, one.likely) == (labels[one.row], true[one.row]) for one in found)
    assert all(one.margin == pytest.approx(0.9 - 0.1 / (classes - 1)) and one.joint > 0 for one in found)


@given(scored(), st.integers(0, 2**32))
def test_the_order_of_the_rows_changes_nothing(case, seed) -> None:
    scores, labels = case
    moved = np.random.default_rng(seed).permutation(len(labels))
    before = [(one.row, one.likely, one.joint) for one in find_suspects(scores, labels)]
    after = [(int(moved[one.row]), one.likely, one.joint) for one in find_suspects(scores[moved], labels[moved])]
    assert after == before


@given(scored())
def test_suspects_come_by_the_score_of_their_label_which_is_never_the_best(case) -> None:
    scores, labels = case
    found = find_suspects(scores, labels)
    assert [one.given_score for one in found] == sorted(one.given_score for one in found)
    for one in found:
        assert one.likely == scores[one.row].argmax() != one.given == labels[one.row]
        assert one.margin > 0
        assert 0 <= one.joint <= 1


def test_many_classes_are_gone_through_in_blocks_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.random.default_rng(0).dirichlet(np.ones(7), 50).astype(np.float32)
    labels = np.arange(50) % 7
    whole = find_suspects(scores, labels)
    monkeypatch.setattr(suspects, "_AT_ONCE", 20)
    assert find_suspects(scores, labels) == whole != []


@pytest.mark.parametrize("shape", [(3,), (2, 4), (3, 0)])
def test_scores_of_another_shape_are_refused_and_of_no_rows_or_classes_there_are_no_suspects(shape) -> None:
    if shape == (3, 0):
        assert find_suspects(np.zeros((0, 3), np.float32), np.zeros(0, np.int64)) == []
        return
    with pytest.raises(ValueError, match="are none for labels"):
        find_suspects(np.zeros(shape, np.float32), np.zeros(3, np.int64))


def rows_of(**labels: list[str]) -> Rows:
    pairs = [(text, label) for label, texts in labels.items() for text in texts]
    return Rows(tuple(text for text, _ in pairs), tuple(label for _, label in pairs))


CARDS = [f"where is my card number {n}" for n in range(20)]
MONEY = [f"please refund the money of order {n}" for n in range(20)]


def test_a_row_is_scored_by_fits_that_have_not_learnt_it_and_a_wrong_label_comes_first() -> None:
    rows = rows_of(
        card=[*CARDS, "please refund the money of order 7, please refund the money of order 8"], refund=MONEY
    )
    told: list[tuple[int, int]] = []
    scored = out_of_fold(rows, Recipe(), lambda done, of: told.append((done, of)))
    assert scored.places == tuple(range(41))
    assert (scored.labels, scored.alone) == (("card", "refund"), 0)
    np.testing.assert_allclose(scored.scores.sum(axis=1), 1, rtol=1e-5)
    assert told[-1] == (suspects.FOLDS, suspects.FOLDS)
    first = find_suspects(scored.scores, scored.given)[0]
    assert (first.row, scored.labels[first.given], scored.labels[first.likely]) == (20, "card", "refund")


def test_a_label_that_no_other_fold_has_is_not_doubted() -> None:
    rows = rows_of(card=CARDS, refund=MONEY, gossip=["have you heard of it"])
    scored = out_of_fold(rows, Recipe())
    assert (scored.alone, scored.labels, len(scored.places)) == (1, ("card", "refund"), 40)


@pytest.mark.parametrize("rows", [rows_of(card=CARDS), rows_of(a=["one"], b=["two"]), Rows((), ())])
def test_without_two_labels_nothing_can_be_doubted(rows: Rows) -> None:
    with pytest.raises(DatasetError, match="two of them at least"):
        out_of_fold(rows, Recipe())


def test_scores_that_would_take_too_much_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspects, "MOST_CELLS", 79)
    with pytest.raises(DatasetError, match="at most 39 rows"):
        out_of_fold(rows_of(card=CARDS, refund=MONEY), Recipe())
