"""How far people agree on the texts that several of them labelled: the plain share, and Cohen's kappa.

Kappa (Cohen, A coefficient of agreement for nominal scales, Educational and Psychological Measurement 20, 1960) takes
off what both would agree on by chance, each giving labels as often as they do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

import msgspec


class Pair(msgspec.Struct, frozen=True):
    """Two people, how many texts both labelled, how many of them alike, and kappa; None where it says nothing."""

    a: str
    b: str
    texts: int
    equal: int
    kappa: float | None


def kappa_of(both: Sequence[tuple[str, str]]) -> float | None:
    """Cohen's kappa of two people's labels of the same texts; None without texts, or where both gave one label only."""
    if not both:
        return None
    ours, theirs = Counter(a for a, _ in both), Counter(b for _, b in both)
    by_chance = sum(ours[label] * theirs[label] for label in ours) / len(both) ** 2
    if by_chance == 1:
        return None
    return (sum(a == b for a, b in both) / len(both) - by_chance) / (1 - by_chance)


def pairs_of(labels: Iterable[Mapping[str, str]]) -> list[Pair]:
    """The pairs of people who labelled a text in common; ``labels`` has for each text who gave it which label."""
    both: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for given in labels:
        for a, b in combinations(sorted(given), 2):
            both.setdefault((a, b), []).append((given[a], given[b]))
    return [
        Pair(a, b, len(of), sum(one == other for one, other in of), kappa_of(of)) for (a, b), of in sorted(both.items())
    ]
