"""A steady stream of requests, and waiting for its answers, over the client alone."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence

import msgspec

from headrace.client import Client, Published
from tests.support.waiting import until

LIMIT_S = 300.0
TICK_S = 0.01
QUIET_S = 5.0


class Waited(msgspec.Struct, frozen=True):
    """A request that was due at ``due_ms`` (milliseconds since the Unix epoch), its answer and who gave it."""

    due_ms: float
    answered_ms: int
    version: str


async def answered(client: Client, count: int) -> None:
    """Wait until the results topic holds ``count`` answers. Raises TimeoutError."""

    async def there() -> bool:
        async with client.reader("latest") as reader:
            return sum(place.position for place in reader.positions.values()) >= count

    await until(there, LIMIT_S)


async def publish_steadily(
    client: Client, texts: Sequence[str], *, rate: float, stop: asyncio.Event
) -> dict[Published, float]:
    """Publish ``rate`` texts a second until ``stop``, waiting for no answer; returns when each was due."""
    begun_ms, begun = time.time() * 1000, time.monotonic()
    due: dict[Published, float] = {}
    count = 0
    while not stop.is_set():
        ready = math.floor((time.monotonic() - begun) * rate) + 1
        numbers = range(count, ready)
        places = await client.publish_many(texts[number % len(texts)] for number in numbers)
        due.update((place, begun_ms + 1000 * number / rate) for place, number in zip(places, numbers, strict=True))
        count = ready
        await asyncio.sleep(TICK_S)
    return due


async def waits(client: Client, due: dict[Published, float]) -> list[Waited]:
    """Read the answers and match them with what was due; until each has its answer, or none comes for QUIET_S."""
    places = {(place.partition, place.offset): due_ms for place, due_ms in due.items()}
    found: list[Waited] = []
    async with client.reader("beginning") as reader:
        while len(found) < len(places) and (answers := await reader.read(timeout_s=QUIET_S)):
            found += [
                Waited(places[place], answer.timestamp_ms, answer.result.version)
                for answer in answers
                if (place := (answer.partition, answer.result.offset)) in places
            ]
    return sorted(found, key=lambda waited: waited.due_ms)
