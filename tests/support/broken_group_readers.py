"""Readers of a group that break one rule each. The group's simulation has to catch every one of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from headrace.client import Answer, GroupReader
from headrace.client.group_reading import Share, Shares
from headrace.client.reading import CHUNK
from headrace.core.answer_log import Place, encode_metadata
from headrace.kafka.interface import Record


class KeepsWhatItFetched(GroupReader):
    """Keeps a fetch across a rebalance, and takes it wherever it begins."""

    async def read(self, *, timeout_s: float = 1.0) -> list[Answer]:
        self._shares.none_in_hand.set()
        answers: list[Answer] = []
        for name, records in (await self._consumer.fetch(max_records=CHUNK, timeout_s=timeout_s)).items():
            while (share := self._shares.owned.get(name)) and (not share.alive or share.expected is None):
                await self._clock.sleep(0.05)
            if share is not None:
                answers += self._take(share, records[0].offset, records)
        return answers


class _ForgetsTheStart(Shares):
    async def _not_yet(self, fresh: Mapping[Share, Place]) -> Collection[Share]:
        return ()


class ForgetsTheStart(GroupReader):
    """Reads from the log's end without committing where that was: a member that is killed leaves no place behind."""

    def __init__(self, *parts: Any, **settings: Any) -> None:
        super().__init__(*parts, **settings)
        self._shares.__class__ = _ForgetsTheStart


class CommitsWhatItRead(GroupReader):
    """Commits behind what it handed over, processed or not."""

    def _take(self, share: Share, expected: int, records: Sequence[Record]) -> list[Answer]:
        answers = super()._take(share, expected, records)
        if answers:
            share.mark(answers[-1])
        return answers


class _LetsCommitsFly(Shares):
    async def _commit(self, places: Mapping[Share, Place]) -> None:
        await self._consumer.commit(
            {share.name: place.position for share, place in places.items()},
            metadata={share.name: encode_metadata(place) for share, place in places.items()},
        )


class LetsCommitsFly(GroupReader):
    """Lets a commit that is under way outlive the assignment for which it was made."""

    def __init__(self, *parts: Any, **settings: Any) -> None:
        super().__init__(*parts, **settings)
        self._shares.__class__ = _LetsCommitsFly


class _ForgetsTheHighest(Shares):
    async def _commit(self, places: Mapping[Share, Place]) -> None:
        await super()._commit({share: Place(place.position) for share, place in places.items()})


class ForgetsTheHighest(GroupReader):
    """Commits positions alone: behind a zombie that wrote more than any look-back, old answers are news."""

    def __init__(self, *parts: Any, **settings: Any) -> None:
        super().__init__(*parts, **settings)
        self._shares.__class__ = _ForgetsTheHighest


class _CommitsTheHighestRead(Shares):
    async def _commit(self, places: Mapping[Share, Place]) -> None:
        await super()._commit({share: Place(place.position, share.reader.highest) for share, place in places.items()})


class CommitsTheHighestRead(GroupReader):
    """Commits the position of what was marked with the highest of what was read: others drop what is between."""

    def __init__(self, *parts: Any, **settings: Any) -> None:
        super().__init__(*parts, **settings)
        self._shares.__class__ = _CommitsTheHighestRead


BROKEN = (
    KeepsWhatItFetched,
    ForgetsTheStart,
    CommitsWhatItRead,
    LetsCommitsFly,
    ForgetsTheHighest,
    CommitsTheHighestRead,
)
