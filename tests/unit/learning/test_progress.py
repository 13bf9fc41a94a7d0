"""The time that a training still takes, as its events let it be guessed."""

from typing import Any

import pytest

from headrace.learning.resources import Remaining, in_words


def epoch(number: int) -> dict[str, Any]:
    return {"event": "training.epoch", "number": number}


def refit(number: int, total: int) -> dict[str, Any]:
    return {"event": "training.refit", "number": number, "total": total}


def test_nothing_is_said_before_an_epoch_was_timed_whole() -> None:
    remaining = Remaining(12, compresses=True, coarse=False)
    assert remaining.after({"event": "training.read"}, 5.0) is None
    assert remaining.after(epoch(1), 20.0) is None


def test_a_second_epoch_tells_the_rest_of_search_compression_and_refit() -> None:
    remaining = Remaining(12, compresses=False, coarse=False)
    remaining.after(epoch(1), 20.0)
    assert remaining.after(epoch(2), 22.0) == pytest.approx(2.0 * (10 + 12))
    compressing = Remaining(12, compresses=True, coarse=False)
    compressing.after(epoch(1), 20.0)
    assert compressing.after(epoch(2), 22.0) > 2.0 * (10 + 12)


def test_a_search_that_goes_on_from_a_checkpoint_counts_its_own_epochs_only() -> None:
    remaining = Remaining(12, compresses=False, coarse=False)
    remaining.after(epoch(7), 20.0)
    assert remaining.after(epoch(8), 22.0) == pytest.approx(2.0 * (4 + 12))


def test_a_search_that_begins_anew_is_timed_anew() -> None:
    remaining = Remaining(12, compresses=False, coarse=False)
    remaining.after(epoch(1), 20.0)
    remaining.after(epoch(2), 22.0)
    assert remaining.after(epoch(1), 30.0) is None
    assert remaining.after(epoch(2), 33.0) == pytest.approx(3.0 * (10 + 12))


def test_what_is_left_of_the_compression_falls_and_never_below_the_refit() -> None:
    remaining = Remaining(4, compresses=True, coarse=True)
    remaining.after(epoch(1), 10.0)
    remaining.after(epoch(2), 12.0)
    said = [remaining.after({"event": "training.compressed"}, now) for now in (13.0, 20.0, 1000.0)]
    assert said == sorted(said, reverse=True)
    assert said[-1] > 2 * 2.0


def test_the_refit_is_told_by_its_own_epochs_and_ends_at_nothing() -> None:
    remaining = Remaining(4, compresses=False, coarse=False)
    remaining.after(epoch(1), 10.0)
    remaining.after(epoch(2), 12.0)
    assert remaining.after(refit(1, 3), 20.0) == pytest.approx(4.0)
    assert remaining.after(refit(2, 3), 25.0) == pytest.approx(5.0)
    assert remaining.after(refit(3, 3), 30.0) == 0


def test_a_training_of_one_epoch_says_nothing_wrong() -> None:
    remaining = Remaining(1, compresses=True, coarse=False)
    assert remaining.after(epoch(1), 10.0) is None
    assert remaining.after({"event": "training.compressed"}, 12.0) is None
    assert remaining.after(refit(1, 1), 20.0) is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "about 10 s left"), (44, "about 40 s left"), (118, "about 2 min left"), (9000, "about 2.5 h left")],
)
def test_time_is_said_as_somebody_who_waits_would_say_it(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
