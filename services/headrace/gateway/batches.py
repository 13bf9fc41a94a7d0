"""The texts of one call: where each was published, and what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from headrace.gateway.bodies import Answer, answer_of, place_text
from headrace_schemas.records import ClassifyResult

Place = tuple[int, int]

LOST = "lost"
PENDING = "pending"
UNKNOWN = "unknown"
UNPUBLISHED = "unpublished"


class Unanswered(NamedTuple):
    """Why a text has no answer: one of the statuses above, in words ``reason``."""

    status: str
    reason: str


class Batch:
    """``size`` texts. ``published`` is done when each has a place or never will, ``answered`` when each has an end.

    A batch that is ``abandoned`` waits for nothing more: what was not handed to Kafka yet is not published. Nor is it
    past ``until_s`` (monotonic). One that is ``replayed`` was published before, by another call.
    """

    __slots__ = (
        "_unanswered", "_unplaced", "abandoned", "answered", "outcomes", "places", "published", "replayed", "until_s",
        "waits",
    )  # fmt: skip

    def __init__(self, size: int, *, waits: bool = True) -> None:
        loop = asyncio.get_running_loop()
        self.places: list[Place | None] = [None] * size
        self.outcomes: list[ClassifyResult | Unanswered | None] = [None] * size
        self.published: asyncio.Future[None] = loop.create_future()
        self.answered: asyncio.Future[None] = loop.create_future()
        self.waits = waits
        self.abandoned = False
        self.replayed = False
        self.until_s: float | None = None
        self._unplaced = size
        self._unanswered = size

    def place(self, numbers: Sequence[int], partition: int, offsets: Sequence[int]) -> None:
        """The texts of these numbers were published at these offsets."""
        places = self.places
        for number, offset in zip(numbers, offsets, strict=True):
            places[number] = (partition, offset)
        self._placed(len(numbers))

    def end(self, index: int, outcome: ClassifyResult | Unanswered) -> None:
        """Text ``index`` has its answer, or will have none; what comes later changes nothing."""
        if self.outcomes[index] is not None:
            return
        self.outcomes[index] = outcome
        self._unanswered -= 1
        if self.places[index] is None:
            self._placed(1)
        if not self._unanswered:
            self._done(self.answered)

    def stop_waiting(self) -> None:
        """Let the caller go on with what there is; what is published is still settled."""
        self._done(self.answered)

    def give_up(self) -> None:
        """Let who waits go on with what there is."""
        self._done(self.published)
        self._done(self.answered)

    @property
    def ended(self) -> bool:
        """Whether every text has its answer, or will have none."""
        return not self._unanswered

    def answer(self, index: int, ranking: int | None = None) -> Answer:
        """What is known of text ``index`` now."""
        outcome, place = self.outcomes[index], self.places[index]
        if isinstance(outcome, ClassifyResult) and place is not None:
            return answer_of(outcome, place, ranking)
        told = None if place is None else place_text(place)
        if isinstance(outcome, Unanswered):
            return Answer(status=outcome.status, place=told, reason=outcome.reason)
        if told is None:
            return Answer(status=UNKNOWN, reason="whether the text was published is unknown")
        return Answer(status=PENDING, place=told)

    def _placed(self, count: int) -> None:
        self._unplaced -= count
        if not self._unplaced:
            self._done(self.published)

    @staticmethod
    def _done(future: asyncio.Future[None]) -> None:
        if not future.done():
            future.set_result(None)
