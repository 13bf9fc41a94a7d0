"""Readers of a group that break one rule each. The group's simulation has to catch every one of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from headrace.client import Answer, GroupReader
from headrace.client.group_reading import AssignedPartition, ReaderAssignment
from headrace.client.reading import CHUNK
from headrace.core.answer_log import Place, encode_metadata
from headrace.kafka.interface import Record


class KeepsWhatItFetched(GroupReader):
    """Keeps a fetch across a rebalance, and takes it wherever it begins."""

    async def read(self, *, timeout_s: float = 1.0) -> list[Answer]:
        self._assignment.none_in_hand.set()
        answers: list[Answer] = []
        for name, records in (await self._consumer.fetch(max_records=CHUNK, timeout_s=timeout_s)).items():
            while (one := self._assignment.owned.get(name)) and (not one.alive or one.expected is None):
                await self._clock.sleep(0.05)
            if one is not None:
                answers += self._take(one, records[0].offset, records)
        return answers


class _ForgetsTheStart(ReaderAssignment):
    async def _not_yet(self, fresh: Mapping[AssignedPartition, Place]) -> Collection[AssignedPartition]:
        return ()


class ForgetsTheStart(GroupReader):
    """Reads from the log's end without committing where that was: a member that is killed leaves no place behind."""

    def __init__(self, *parts: Any, **settings: Any) -> None:
        super().__init__(*parts, **settings)
        self._assignment.__class__ = _ForgetsTheStart


class CommitsWhatItRead(GroupReader):
    """Commits behind what it handed over, processed or not."""

    def _take(self, partition: AssignedPartition, expected: int, records: Sequence[Record]) -> list[Answer]:
        answers = super()._take(partition, expected, records)
        if answers:
            partition.mark(answers[-1])
        return answers


class _LetsCommitsFly(ReaderAssignment):
    async def _commit(self, places: Mapping[AssignedPartition, Place]) -> None:
        await self._consumer.commit(
            {partition.name: place.position for partition, place in places.items()},
            metadata={partition.name: encode_metadata(place) for partition, place in places.items()},
        )


class LetsCommitsFly(GroupReader):
    """Lets a commit that is under way outlive the assignment for which it was made."""

    def __init__(self, *parts: Any, **settings: Any) -> None:
        super().__init__(*parts, **settings)
        self._assignment.__class__ = _LetsCommitsFly


class _ForgetsTheHighest(ReaderAssignment):
    async def _commit(self, places: Mapping[AssignedPartition, Place]) -> None:
        await super()._commit({partition: Place(place.position) for partition, place in places.items()})


class ForgetsTheHighest(GroupReader):
    """Commits positions alone: behind a zombie that wrote more than any look-back, old answers are news."""

    def __init__(self, *parts: Any, **settings: Any) -> None:
        super().__init__(*parts, **settings)
        self._assignment.__class__ = _ForgetsTheHighest


class _CommitsTheHighestRead(ReaderAssignment):
    async def _commit(self, places: Mapping[AssignedPartition, Place]) -> None:
        await super()._commit({one: Place(place.position, one.reader.highest) for one, place in places.items()})


class CommitsTheHighestRead(GroupReader):
    """Commits the position of what was marked with the highest of what was read: others drop what is between."""

    def __init__(self, *parts: Any, **settings: Any) -> None:
        super().__init__(*parts, **settings)
        self._assignment.__class__ = _CommitsTheHighestRead


BROKEN = (
    KeepsWhatItFetched,
    ForgetsTheStart,
    CommitsWhatItRead,
    LetsCommitsFly,
    ForgetsTheHighest,
    CommitsTheHighestRead,
)
