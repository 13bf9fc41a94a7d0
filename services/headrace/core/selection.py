"""Which texts are worth a label: by chance, by the least margin, and what was answered without a label.

The random slice is chosen by the place of a request and by nothing that the model says, so it is a sample of what comes
in: certificates are made of it, and nothing else may be called so.
"""

from __future__ import annotations

import enum
import hashlib

import msgspec

from headrace_schemas.records import ClassifyResult, Status

_DRAWS = 2**64


class Why(enum.StrEnum):
    """Why a text is asked about."""

    RANDOM = "random-slice"
    ABSTAINED = "abstained"
    MARGIN = "margin"


class Wish(msgspec.Struct, frozen=True):
    """A request worth a label; the lower the ``margin``, in [0, 1], the more it is."""

    why: Why
    margin: float


def in_random_slice(topic: str, partition: int, offset: int, share: float) -> bool:
    """Whether chance chose the request: the same for all who ask; a larger share has all of a smaller one in it."""
    drawn = hashlib.blake2b(f"{topic}/{partition}/{offset}".encode(), digest_size=8, person=b"random-slice").digest()
    return int.from_bytes(drawn, "big") < share * _DRAWS


def margin_of(answer: ClassifyResult) -> float:
    """How far the best label is before the second, in [0, 1]; without a ranking, how far its score is above chance."""
    if len(answer.ranking) > 1:
        return answer.ranking[0].score - answer.ranking[1].score
    score = answer.score or (answer.ranking[0].score if answer.ranking else 0.0)
    # The others have 1 - score together, so the second has no more.
    return max(0.0, 2 * score - 1)


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
