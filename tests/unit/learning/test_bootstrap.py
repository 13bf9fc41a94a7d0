"""The paired bootstrap of macro-F1: equal to the plain one over rows, and as wide as it should be."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.learning.evaluate import by_chance, compare_paired, macro_f1_interval

LABELS = ("a", "b", "c", "d")
rows = st.lists(st.tuples(*[st.sampled_from(LABELS)] * 3), min_size=1, max_size=60)


def compared(truth: Sequence[str], candidate: Sequence[str], champion: Sequence[str], resamples: int = 200):
    return compare_paired(truth, candidate, champion, resamples=resamples, randomness=np.random.default_rng(7))


def macro_f1(truth: Sequence[str], answers: Sequence[str]) -> float:
    """Written out, over the classes among ``truth``."""
    scores = []
    for label in sorted(set(truth)):
        right = sum(one == other == label for one, other in zip(truth, answers, strict=True))
        scores.append(2 * right / (list(truth).count(label) + list(answers).count(label)))
    return sum(scores) / len(scores)


@given(rows)
@settings(deadline=None)
def test_the_figures_are_those_of_the_rows(drawn: list[tuple[str, str, str]]) -> None:
    truth, candidate, champion = zip(*drawn, strict=True)
    result = compared(truth, candidate, champion)
    assert result.macro_f1 == pytest.approx(macro_f1(truth, candidate))
    assert result.rival_macro_f1 == pytest.approx(macro_f1(truth, champion))
    assert -1 <= result.low <= result.high <= 1


@given(rows)
@settings(deadline=None)
def test_equal_answers_differ_by_nothing_and_the_order_of_rows_does_not_matter(
    drawn: list[tuple[str, str, str]],
) -> None:
    truth, candidate, champion = zip(*drawn, strict=True)
    same = compared(truth, candidate, candidate)
    assert same.difference == 0
    assert -1 <= same.low < 0 < same.high <= 1
    turned = zip(*reversed(drawn), strict=True)
    assert compared(*turned) == compared(truth, candidate, champion)


def test_the_interval_is_that_of_drawing_rows() -> None:
    generator = np.random.default_rng(3)
    truth = generator.choice(LABELS, 300)
    candidate = np.where(generator.random(300) < 0.85, truth, generator.choice(LABELS, 300))
    champion = np.where(generator.random(300) < 0.9, candidate, generator.choice(LABELS, 300))
    plain = []
    for _ in range(500):
        chosen = generator.integers(0, 300, 300)
        plain.append(macro_f1(truth[chosen], candidate[chosen]) - macro_f1(truth[chosen], champion[chosen]))
    result = compared(list(truth), list(candidate), list(champion), 4000)
    low, high = np.quantile(plain, (0.025, 0.975))
    assert (result.low, result.high) == pytest.approx((low, high), abs=0.006)


def test_the_interval_covers_the_true_difference_about_as_often_as_it_says() -> None:
    # Of two answers to a row the candidate's is right 85 times in 100 and the champion's 80 times: five points apart.
    generator = np.random.default_rng(11)
    covered = 0
    for _ in range(200):
        truth = np.tile([0, 1], 150)
        candidate = np.where(generator.random(300) < 0.85, truth, 1 - truth)
        champion = np.where(generator.random(300) < 0.80, truth, 1 - truth)
        result = compared(*(list(np.array(["x", "y"])[one]) for one in (truth, candidate, champion)), 400)
        covered += result.low <= 0.05 <= result.high
    assert 180 <= covered <= 199


def test_a_class_that_the_champion_does_not_know_counts_against_it() -> None:
    truth = ["old"] * 50 + ["new"] * 50
    result = compared(truth, truth, ["old"] * 100)
    assert result.macro_f1 == 1
    assert result.low > 0.5


def test_the_seed_decides_the_interval_and_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(5)
    truth, candidate, champion = (list(generator.choice(LABELS, 100)) for _ in range(3))
    whole = compared(truth, candidate, champion)
    assert compared(truth, candidate, champion) == whole
    monkeypatch.setattr("headrace.learning.evaluate._CELLS_AT_ONCE", 500)
    assert compared(truth, candidate, champion) == whole


@pytest.mark.parametrize("rows", [1, 2, 5, 9, 30, 100])
def test_few_rows_that_are_all_right_do_not_make_an_interval_of_one_point(rows: int) -> None:
    truth = (["a", "b"] * rows)[:rows]
    low, high = macro_f1_interval(truth, truth)
    # As far down as the exact interval of an accuracy (Clopper and Pearson), about.
    assert high == 1
    assert low <= 0.025 ** (1 / rows) + 0.02
    same = compared(truth, truth, truth, 2000)
    assert same.low <= -(1 - 0.025 ** (1 / rows)) * 0.7
    assert same.high >= (1 - 0.025 ** (1 / rows)) * 0.7


@given(rows)
@settings(deadline=None, max_examples=30)
def test_an_interval_holds_what_was_seen_and_the_order_of_rows_does_not_matter(
    drawn: list[tuple[str, str, str]],
) -> None:
    truth, answers, _ = zip(*drawn, strict=True)
    low, high = macro_f1_interval(truth, answers)
    assert 0 <= low <= macro_f1(truth, answers) + 1e-12
    assert macro_f1(truth, answers) - 1e-12 <= high <= 1
    assert macro_f1_interval(truth[::-1], answers[::-1]) == (low, high)


def chance(truth: Sequence[str], answers: Sequence[str], resamples: int = 2000) -> float:
    return by_chance(truth, answers, resamples=resamples, randomness=np.random.default_rng(7))


@pytest.mark.parametrize(
    ("truth", "answers", "exact"),
    [
        ("a", "a", 1.0),
        ("ab", "ab", 1 / 2),
        ("aabb", "aabb", 1 / 6),
        ("aaaabbbb", "aaaabbbb", 1 / 70),
        ("aaaaaaaaab", "aaaaaaaaaa", 1.0),
        ("aaaa", "aaaa", 1.0),
        ("abab", "baba", 1.0),
    ],
)
def test_how_often_chance_does_as_well_is_what_counting_all_orders_gives(
    truth: str, answers: str, exact: float
) -> None:
    found = chance(list(truth), list(answers))
    assert found == pytest.approx(exact, abs=0.035)
    assert found >= 1 / 2001


def test_answers_that_ignore_the_text_pass_for_more_about_as_often_as_is_allowed() -> None:
    generator = np.random.default_rng(2)
    taken = 0
    for _ in range(400):
        truth, answers = (list(generator.choice(["a", "b", "c"], 12)) for _ in range(2))
        taken += chance(truth, answers, 200) <= 0.025
    assert taken <= 22


@pytest.mark.parametrize(("truth", "answers"), [([], []), (["a"], ["a", "b"])])
def test_nothing_has_no_interval_and_no_chance(truth: list[str], answers: list[str]) -> None:
    with pytest.raises(ValueError, match="can't be compared"):
        macro_f1_interval(truth, answers)
    with pytest.raises(ValueError, match="can't be compared"):
        chance(truth, answers)


def test_many_labels_take_room_for_the_rows_and_not_for_each_pair_of_labels() -> None:
    truth = [str(number) for number in range(2000)]
    result = compared(truth, truth, truth[::-1], 100)
    assert (result.macro_f1, result.rival_macro_f1) == (1, 0)


@pytest.mark.parametrize(("truth", "candidate"), [([], []), (["a"], ["a", "b"])])
def test_nothing_to_compare_is_an_error(truth: list[str], candidate: list[str]) -> None:
    with pytest.raises(ValueError, match="can't be compared"):
        compared(truth, candidate, candidate)
