"""How many labels a queue saves: how often its labels correct the model, beside labels of texts that chance chose.

The ratio is that of Mantel and Haenszel for risks, by version, so that a queue labelled while the model was bad is not
compared with a random slice of later, when it was good. Its interval is that of Greenland and Robins (Estimation of a
common effect parameter from sparse follow-up data, Biometrics 41, 1985).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

import msgspec

from headrace.core.selection import Why

QUEUES = (Why.MARGIN, Why.ABSTAINED, Why.DISAGREEMENT)
FEWEST_TEXTS = 20
FEWEST_WRONG = 3
"""Without so many of each no ratio is told: the interval holds for logarithms of counts that are not tiny."""
_NORMAL_95 = 1.959964


class Judged(msgspec.Struct, frozen=True):
    """A label: how its text was chosen (``source``), by which version's answers, and whether that version was wrong."""

    source: str
    version: str
    wrong: bool


class Saving(msgspec.Struct, frozen=True):
    """A queue beside the random slice, over the versions of which both have labels.

    ``times`` is how many times as often the model was wrong on the queue's texts, with the bounds of 95 % confidence;
    None where there are too few of either.
    """

    source: str
    texts: int
    wrong: int
    chance_texts: int
    chance_wrong: int
    times: float | None = None
    low: float | None = None
    high: float | None = None
    fewest_texts: int = FEWEST_TEXTS
    fewest_wrong: int = FEWEST_WRONG


def savings(labels: Iterable[Judged]) -> list[Saving]:
    """What is known of each queue that has a version in common with the random slice."""
    texts: Counter[tuple[str, str]] = Counter()
    wrong: Counter[tuple[str, str]] = Counter()
    for one in labels:
        texts[one.source, one.version] += 1
        wrong[one.source, one.version] += one.wrong
    by_chance = {version for source, version in texts if source == Why.RANDOM}
    found = []
    for queue in QUEUES:
        versions = sorted(version for source, version in texts if source == queue and version in by_chance)
        strata = [
            (wrong[queue, one], texts[queue, one], wrong[Why.RANDOM, one], texts[Why.RANDOM, one]) for one in versions
        ]
        if strata:
            found.append(_saving(queue, strata))
    return found


def _saving(queue: Why, strata: list[tuple[int, int, int, int]]) -> Saving:
    """Each stratum has how many texts of the queue were wrong, how many there are, and the same of the random slice."""
    wrong, texts, chance_wrong, chance_texts = (sum(column) for column in zip(*strata, strict=True))
    counted = Saving(queue, texts, wrong, chance_texts, chance_wrong)
    if min(texts, chance_texts) < FEWEST_TEXTS or min(wrong, chance_wrong) < FEWEST_WRONG:
        return counted
    queued = sum(a * m / (n + m) for a, n, _, m in strata)
    chance = sum(c * n / (n + m) for _, n, c, m in strata)
    spread = sum(((a + c) * n * m - a * c * (n + m)) / (n + m) ** 2 for a, n, c, m in strata)
    width = _NORMAL_95 * math.sqrt(spread / (queued * chance))
    times = queued / chance
    return msgspec.structs.replace(counted, times=times, low=times * math.exp(-width), high=times * math.exp(width))
