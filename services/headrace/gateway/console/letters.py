"""Dead letters: why records could not be used, one letter whole, and its replay.

A letter goes back only where it came from, to the topic of requests or of labels, and only where the log confirms it:
``client/dead_letters.py`` decides that for the command and for the console alike.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from typing import TYPE_CHECKING

import msgspec
from starlette.responses import Response

from headrace.client.dead_letters import (
    REPEATED,
    Found,
    Originals,
    Targets,
    lacking,
    read_dead_letters,
    read_replayed,
    refused,
    replay,
)
from headrace.client.publishing import Publisher
from headrace.gateway.calls import json_response
from headrace.gateway.console.access import OPERATORS, Call, Endpoint
from headrace.gateway.problems import conflict, not_found
from headrace.kafka.interface import Cluster
from headrace.process.logs import event
from headrace_schemas.errors import place

if TYPE_CHECKING:
    from headrace.config import Settings

LAST = 2000
"""How many of the last letters are counted by their reasons."""
SHOWN = 200
MOST_BYTES = 64 * 1024
"""How many bytes of a value are shown."""


class Listed(msgspec.Struct, frozen=True, omit_defaults=True):
    """A letter as one line. ``lacking`` says why it can't be replayed, where it does not hold its record."""

    at: str
    origin: str
    at_ms: int
    stage: str
    error: str
    message: str
    attempt: int
    lacking: str | None = None


class Reason(msgspec.Struct, frozen=True):
    """How many letters have one error, of one stage."""

    stage: str
    error: str
    letters: int


class Letters(msgspec.Struct, frozen=True):
    """The last letters, the newest first, and the reasons of the last LAST."""

    counted: int
    reasons: list[Reason]
    letters: list[Listed]


class Whole(msgspec.Struct, frozen=True, omit_defaults=True):
    """A letter with what it keeps of its record. Bytes that are no UTF-8 are replaced; ``size`` counts all of them."""

    letter: Listed
    version: str | None
    key: str | None
    value: str | None
    size: int
    cut: bool
    headers: list[tuple[str, str | None]]


class Replay(msgspec.Struct, frozen=True):
    """Which letter is published again."""

    at: str


class DeadLetters:
    """Reads and replays the dead letters of one configuration."""

    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        self._cluster = cluster
        self._names = settings.topics.names()
        self._replaying = asyncio.Lock()

    def endpoints(self) -> tuple[Endpoint, ...]:
        return (
            Endpoint("GET", "/api/letters", OPERATORS, self._list),
            Endpoint("GET", "/api/letters/{at}", OPERATORS, self._show),
            Endpoint("POST", "/api/letters/replay", OPERATORS, self._replay),
        )

    async def _list(self, call: Call) -> Response:
        del call
        found: deque[Found] = deque(maxlen=LAST)
        async for one in read_dead_letters(self._cluster, self._names.dead_letters, last=LAST):
            found.append(one)
        newest = sorted(found, key=lambda one: -one.timestamp_ms)
        reasons = Counter((one.letter.stage, one.letter.error) for one in newest)
        return json_response(
            Letters(
                len(newest),
                [Reason(stage, error, count) for (stage, error), count in reasons.most_common()],
                [_listed(one) for one in newest[:SHOWN]],
            )
        )

    async def _show(self, call: Call) -> Response:
        found = await self._find(call.request.path_params["at"])
        letter, value = found.letter, found.letter.value or b""
        return json_response(
            Whole(
                letter=_listed(found),
                version=letter.version,
                key=_text(letter.key),
                value=_text(None if letter.value is None else value[:MOST_BYTES]),
                size=len(value),
                cut=len(value) > MOST_BYTES,
                headers=[(name, _text(of)) for name, of in letter.headers],
            )
        )

    async def _replay(self, call: Call) -> Response:
        asked = await call.body(Replay)
        found = await self._find(asked.at)
        letter, topic = found.letter, found.letter.topic
        targets = Targets(frozenset({self._names.requests, self._names.labels}))
        async with self._replaying, Originals(self._cluster) as originals:
            if (why := await refused(found, targets, originals)) is not None:
                raise conflict(f"Not replayed. The letter is one {_which(why)}")
            marked = await read_replayed(self._cluster, self._names.dead_letters)
            origin = place(topic, letter.partition, letter.offset)
            if (found.partition, found.offset) in marked.places:
                raise conflict("Not replayed: it was replayed before.")
            if origin in marked.origins:
                raise conflict(f"Not replayed. The letter is one {_which(REPEATED)}")
            publisher = Publisher(self._cluster.producer, topic)
            marks = Publisher(self._cluster.producer, self._names.dead_letters)
            try:
                published = await replay(publisher, marks, found, letter.partition)
            finally:
                await publisher.stop()
                await marks.stop()
        event("console.replayed", by=call.caller.name, letter=asked.at, topic=topic, offset=published.offset)
        return json_response({"to": place(topic, published.partition, published.offset)})

    async def _find(self, at: str) -> Found:
        partition, _, offset = at.partition("@")
        if not (partition.isascii() and partition.isdigit() and offset.isascii() and offset.isdigit()):
            raise not_found("A dead letter is named PARTITION@OFFSET.")
        where = (int(partition), int(offset))
        async for one in read_dead_letters(self._cluster, self._names.dead_letters, places=(where,)):
            return one
        raise not_found(f"There is no dead letter at {at}.")


def _which(why: str) -> str:
    return why if why.startswith(("of ", "that ", "whose ")) else f"that is {why}"


def _listed(found: Found) -> Listed:
    letter = found.letter
    return Listed(
        at=f"{found.partition}@{found.offset}",
        origin=place(letter.topic, letter.partition, letter.offset),
        at_ms=found.timestamp_ms,
        stage=letter.stage,
        error=letter.error,
        message=letter.message,
        attempt=letter.attempt,
        lacking=lacking(found),
    )


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "replace")
