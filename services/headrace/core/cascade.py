"""The certified cascade: above which score a version may answer alone, and whether that score is still high enough.

It uses two bounds on the fraction of wrong answers. A certificate is made once, from a fixed number of rows, so its
bound is the exact one of Clopper and Pearson (Biometrika 26, 1934). Afterwards every new row is looked at, and chance
would sooner or later break a bound for a fixed number of rows. So the watch uses a confidence sequence, which holds at
all moments at once: the beta mixture of Robbins (Annals of Mathematical Statistics 41, 1970) with Ville's inequality.

Thresholds are tested in a fixed sequence (Maurer, Hothorn and Lehmacher, 1995; for risk control Angelopoulos et al.,
Learn then Test, 2021): from the highest down to the first that fails, each at the full level, with no correction,
because the order and the grid are fixed before any label of the tested rows is seen.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

import msgspec

RANDOM_SLICE: Final = "random-slice"
"""The source of labels of texts that were chosen at random. Only these are a sample of all texts that come in."""

CONFIDENCE: Final = 0.95
LEAST_ACCEPTED: Final = 300
"""Testing begins at the highest threshold that so many rows reach."""

GRID: Final = 50
_HALVINGS = 60


class Certified(msgspec.Struct, frozen=True, kw_only=True):
    """The lowest threshold that passed. Of ``rows`` rows, ``accepted`` reach it, and ``errors`` of these are answered
    wrong.

    ``bound`` is the upper bound of the share of errors.
    """

    threshold: float
    rows: int
    accepted: int
    errors: int
    bound: float


class Refused(msgspec.Struct, frozen=True):
    """No threshold passed; ``why`` tells the operator the reason."""

    why: str


def upper_bound(errors: int, rows: int, confidence: float = CONFIDENCE) -> float:
    """The exact one-sided upper bound (Clopper-Pearson) of the fraction of errors, when ``errors`` of ``rows`` were
    seen.

    1.0 without rows, and where all are errors. Raises ValueError for counts that can't be.
    """
    _check(errors, rows)
    if errors >= rows:
        return 1.0
    low, high = errors / rows, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _at_most(errors, rows, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def rows_needed(disagree: float, confidence: float = CONFIDENCE) -> int:
    """How many accepted rows without an error certify a fraction of at most ``disagree``: 149 for 2 %, 299 for 1 %."""
    return math.ceil(math.log(1 - confidence) / math.log1p(-disagree))


def grid_of(scores: Sequence[float], steps: int = GRID) -> tuple[float, ...]:
    """Thresholds to test, highest first: the scores that 1/steps, 2/steps and so on of ``scores`` reach.

    ``scores`` belong to other rows than the tested ones, so that the grid is fixed before these are seen.
    """
    ordered = sorted(scores, reverse=True)
    if not ordered:
        return ()
    places = (math.ceil(step * len(ordered) / steps) - 1 for step in range(1, steps + 1))
    return tuple(sorted({ordered[place] for place in places}, reverse=True))


def certify(
    scores: Sequence[float],
    wrong: Sequence[bool],
    grid: Sequence[float],
    *,
    disagree: float,
    confidence: float = CONFIDENCE,
    least: int = LEAST_ACCEPTED,
) -> Certified | Refused:
    """The lowest threshold of ``grid`` above which the fraction of wrong answers is certified to be at most
    ``disagree``.

    ``scores[i]`` is the version's score of row i, ``wrong[i]`` whether its answer differs from the true label; the rows
    are a random sample that the version never saw. Raises ValueError for a ``disagree`` or a ``confidence`` that is no
    share, and for rows of unequal number.
    """
    if not 0 < disagree < 1 or not 0 < confidence < 1:
        raise ValueError(f"disagree {disagree} and confidence {confidence} have to lie between 0 and 1")
    if len(scores) != len(wrong):
        raise ValueError(f"{len(scores)} scores and {len(wrong)} answers don't belong together")
    needed = max(least, rows_needed(disagree, confidence))
    rows = sorted(zip(scores, wrong, strict=True), reverse=True)
    errors_before = [0]
    for _, is_wrong in rows:
        errors_before.append(errors_before[-1] + is_wrong)
    # Negated, so that they ascend as bisect wants them.
    ascending = [-score for score, _ in rows]
    found: Certified | None = None
    for threshold in grid:
        accepted = bisect_left(ascending, math.nextafter(-threshold, math.inf))
        if accepted < needed:
            continue
        errors = errors_before[accepted]
        bound = upper_bound(errors, accepted, confidence)
        if bound > disagree:
            if found is None:
                return Refused(
                    f"of the {accepted} rows with a score of {threshold:.6f} or more, {errors} are answered wrong: the "
                    f"share may be up to {bound:.2%}, and {disagree:.2%} is allowed"
                )
            break
        found = Certified(threshold=threshold, rows=len(rows), accepted=accepted, errors=errors, bound=bound)
    if found is None:
        return Refused(
            f"{len(rows)} rows are too few: at least {needed} have to reach a threshold, and even without one wrong "
            f"answer a bound of {disagree:.2%} needs {rows_needed(disagree, confidence)}"
        )
    return found


def lower_bound_anytime(errors: int, rows: int, expected: float, confidence: float = CONFIDENCE) -> float:
    """A lower bound of the true fraction of errors that holds at all moments at once, with ``confidence``.

    The bound is tightest at the fraction ``expected``, which may be any value that was fixed beforehand.
    """
    _check(errors, rows)
    low, high = 0.0, errors / rows if rows else 0.0
    if not _excluded(errors, rows, low, expected, confidence):
        return 0.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _excluded(errors, rows, middle, expected, confidence):
            low = middle
        else:
            high = middle
    return low


def upper_bound_anytime(errors: int, rows: int, expected: float, confidence: float = CONFIDENCE) -> float:
    """The upper bound that belongs to :func:`lower_bound_anytime`."""
    return 1.0 - lower_bound_anytime(rows - errors, rows, 1.0 - expected, confidence)


def _excluded(errors: int, rows: int, share: float, expected: float, confidence: float) -> bool:
    """Whether the mixture over Beta(a, b) outweighs ``share`` by 1 / (1 - confidence)."""
    if share <= 0.0:
        return errors > 0
    # A prior worth about one error, with its mean at ``expected``.
    scale = 1.0 / min(expected, 1.0 - expected)
    a, b = expected * scale, (1.0 - expected) * scale
    mixture = _log_beta(errors + a, rows - errors + b) - _log_beta(a, b)
    under_share = errors * math.log(share) + (rows - errors) * math.log1p(-share)
    return mixture - under_share >= -math.log(1 - confidence)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _at_most(errors: int, rows: int, share: float) -> float:
    """The probability of at most ``errors`` among ``rows`` where each is one with probability ``share``."""
    log_share, log_other = math.log(share), math.log1p(-share)
    of_rows = math.lgamma(rows + 1)
    return math.fsum(
        math.exp(
            of_rows
            - math.lgamma(count + 1)
            - math.lgamma(rows - count + 1)
            + count * log_share
            + (rows - count) * log_other
        )
        for count in range(errors + 1)
    )


def _check(errors: int, rows: int) -> None:
    if not 0 <= errors <= rows:
        raise ValueError(f"{errors} errors of {rows} rows can't be")
