"""Which texts are worth a label: by chance, by the least margin, what was answered without a label, and what two
versions answer differently.

The random slice is chosen by the place of a request and by nothing that the model says, so it is a sample of what comes
in: certificates are made of it, and nothing else may be called so.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import TypeVar

import msgspec

from headrace_schemas.records import ClassifyResult, Status

_DRAWS = 2**64

T = TypeVar("T")


class Why(enum.StrEnum):
    """Why a text is asked about."""

    RANDOM = "random-slice"
    ABSTAINED = "abstained"
    MARGIN = "margin"
    DISAGREEMENT = "disagreement"


class Wish(msgspec.Struct, frozen=True):
    """A request worth a label; the lower the ``margin``, in [0, 1], the more it is."""

    why: Why
    margin: float


def in_random_slice(topic: str, partition: int, offset: int, share: float) -> bool:
    """Whether chance chose the request: the same for all who ask; a larger share has all of a smaller one in it."""
    return draw_of(topic, partition, offset) < share * _DRAWS


def draw_of(topic: str, partition: int, offset: int) -> int:
    """The 64 bits that chance gave the request."""
    drawn = hashlib.blake2b(f"{topic}/{partition}/{offset}".encode(), digest_size=8, person=b"random-slice").digest()
    return int.from_bytes(drawn, "big")


def margin_of(answer: ClassifyResult) -> float:
    """How far the best label is before the second, in [0, 1]; without a ranking, how far its score is above chance."""
    if len(answer.ranking) > 1:
        return max(0.0, min(1.0, answer.ranking[0].score - answer.ranking[1].score))
    score = answer.score or (answer.ranking[0].score if answer.ranking else 0.0)
    # The others have 1 - score together, so the second has no more.
    return max(0.0, min(1.0, 2 * score - 1))


def wish_of(
    answer: ClassifyResult, *, topic: str, partition: int, random: float, least_margin: float, abstained: bool
) -> Wish | None:
    """Whether the request behind ``answer`` is worth a label; None where it is not, or where it has no text.

    ``topic`` and ``partition`` are those of the request, ``random`` is the share of the random slice.
    """
    if answer.status is not Status.OK:
        return None
    margin = margin_of(answer)
    if in_random_slice(topic, partition, answer.offset, random):
        return Wish(Why.RANDOM, margin)
    if answer.label is None:
        return Wish(Why.ABSTAINED, margin) if abstained else None
    return Wish(Why.MARGIN, margin) if margin < least_margin else None


class Candidate(msgspec.Struct, frozen=True):
    """A request that may be asked about: its partition, its answer, and what another version answered, if it did."""

    partition: int
    answer: ClassifyResult
    other: ClassifyResult | None = None


def best_of(answer: ClassifyResult) -> str | None:
    """The label of an answer, or what it would have been without a threshold; None where nothing says it."""
    return answer.label or (answer.ranking[0].label if answer.ranking else None)


def disagree(answer: ClassifyResult, other: ClassifyResult) -> bool:
    """Whether two versions hold different labels for the best; what either abstained on counts by its ranking."""
    ours, theirs = best_of(answer), best_of(other)
    return ours is not None and theirs is not None and ours != theirs


def in_order(candidates: Iterable[Candidate], why: Why, *, topic: str) -> list[Candidate]:
    """The candidates of one queue, those most worth a label first; ``topic`` is that of the requests.

    By margin: the smallest first, abstained or not. Abstained: the same of those alone. Disagreement: where both
    versions are sure, one of them is surely wrong, so the larger of the two lesser margins comes first. By chance: in
    the order of the draws, so that the first n are a random slice, of whatever share n is.
    """
    answered = [one for one in candidates if one.answer.status is Status.OK]
    match why:
        case Why.RANDOM:
            return sorted(answered, key=lambda one: draw_of(topic, one.partition, one.answer.offset))
        case Why.ABSTAINED:
            answered = [one for one in answered if one.answer.label is None]
        case Why.DISAGREEMENT:
            differ = [one for one in answered if one.other is not None and disagree(one.answer, one.other)]
            return sorted(differ, key=lambda one: (-_sureness(one), one.partition, one.answer.offset))
        case Why.MARGIN:
            pass
    return sorted(answered, key=lambda one: (margin_of(one.answer), one.partition, one.answer.offset))


def _sureness(candidate: Candidate) -> float:
    assert candidate.other is not None  # noqa: S101 - the caller has looked
    return min(margin_of(candidate.answer), margin_of(candidate.other))


def distinct(items: Iterable[T], keys: Sequence[Hashable], known: Iterable[Hashable] = ()) -> Iterator[T]:
    """The first item of each key, without those whose key is among ``known``: ``keys[i]`` is that of item i."""
    seen = set(known)
    for item, key in zip(items, keys, strict=True):
        if key not in seen:
            seen.add(key)
            yield item


def reason_for(candidate: Candidate, why: Why) -> str:
    """Why the request is asked about, in words for who labels it."""
    answer, other = candidate.answer, candidate.other
    match why:
        case Why.RANDOM:
            return "chosen by chance"
        case Why.DISAGREEMENT if other is not None:
            return f"{answer.version} says {best_of(answer)}, {other.version} says {best_of(other)}"
        case Why.ABSTAINED:
            score = answer.score if answer.score is not None else (answer.ranking[0].score if answer.ranking else 0.0)
            return f"answered without a label: the best score was {score:.3f}"
        case _ if len(answer.ranking) > 1:
            first, second = answer.ranking[:2]
            return f"{first.label} {first.score:.3f} and {second.label} {second.score:.3f} are near"
        case _:
            return f"its margin is {margin_of(answer):.3f}"
