"""Near duplicates: texts that share most of their character n-grams, so that one look labels all of them.

The measure is the resemblance of Broder (On the resemblance and containment of documents, 1997): the Jaccard index of
the sets of shingles, here of characters, so that it holds in scripts without spaces too. All pairs are compared, which
suits the few hundred texts that somebody is to label.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

SHINGLE = 4
RESEMBLANCE = 0.7


def shingles(text: str) -> frozenset[str]:
    """The character n-grams of a text, whatever its case and spaces."""
    plain = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return frozenset(plain[at : at + SHINGLE] for at in range(max(1, len(plain) - SHINGLE + 1)))


def resemblance(one: frozenset[str], other: frozenset[str]) -> float:
    """The Jaccard index of two sets, in [0, 1]."""
    together = len(one | other)
    return len(one & other) / together if together else 1.0


def near_duplicates(texts: Sequence[str], least: float = RESEMBLANCE) -> list[list[int]]:
    """For each text the places of the others that resemble it at least so much, in their order."""
    sets = [shingles(text) for text in texts]
    found: list[list[int]] = [[] for _ in texts]
    for place, one in enumerate(sets):
        for other in range(place):
            # The index is at most the ratio of the sizes.
            small, large = sorted((len(one), len(sets[other])))
            if small >= least * large and resemblance(one, sets[other]) >= least:
                found[place].append(other)
                found[other].append(place)
    return [sorted(places) for places in found]
