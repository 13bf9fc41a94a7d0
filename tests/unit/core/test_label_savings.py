"""How many labels a queue saves."""

import math

import pytest

from headrace.core.label_savings import Judged, savings


def judged(source: str, version: str, wrong: int, texts: int) -> list[Judged]:
    return [Judged(source, version, number < wrong) for number in range(texts)]


def test_of_one_version_the_ratio_is_that_of_the_fractions_with_the_interval_of_textbooks() -> None:
    (found,) = savings([*judged("margin", "v1", 17, 40), *judged("random-slice", "v1", 3, 40)])
    assert (found.source, found.texts, found.wrong, found.chance_texts, found.chance_wrong) == ("margin", 40, 17, 40, 3)
    # Katz et al. 1978: the logarithm's variance is 1/17 - 1/40 + 1/3 - 1/40.
    width = 1.959964 * math.sqrt(1 / 17 - 1 / 40 + 1 / 3 - 1 / 40)
    assert found.times == pytest.approx(17 / 3)
    assert (found.low, found.high) == (
        pytest.approx(17 / 3 / math.exp(width)),
        pytest.approx(17 / 3 * math.exp(width)),
    )


def test_a_queue_that_was_labelled_while_the_model_was_bad_gains_nothing_by_it() -> None:
    # Within each version the queue is as often wrong as chance; of all labels together it is three times as often.
    found = savings(
        [
            *judged("margin", "bad", 80, 160),
            *judged("random-slice", "bad", 10, 20),
            *judged("margin", "good", 2, 20),
            *judged("random-slice", "good", 16, 160),
        ]
    )
    assert found[0].times == pytest.approx(1.0)


def test_versions_that_one_of_them_lacks_do_not_count() -> None:
    (found,) = savings(
        [*judged("margin", "v1", 9, 30), *judged("random-slice", "v1", 3, 30), *judged("margin", "v2", 30, 30)]
    )
    assert (found.texts, found.wrong) == (30, 9)
    assert savings([*judged("margin", "v1", 9, 30), *judged("random-slice", "v2", 3, 30)]) == []
    assert savings([*judged("suspect", "v1", 9, 30), *judged("random-slice", "v1", 3, 30)]) == []


@pytest.mark.parametrize("chance", [(3, 19), (2, 40), (0, 40)])
def test_too_few_are_counted_and_told_without_a_ratio(chance: tuple[int, int]) -> None:
    (found,) = savings([*judged("margin", "v1", 17, 40), *judged("random-slice", "v1", *chance)])
    assert (found.chance_wrong, found.chance_texts) == chance
    assert (found.times, found.low, found.high) == (None, None, None)
