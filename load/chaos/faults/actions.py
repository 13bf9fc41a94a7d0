"""What several faults do: act at an exact point of a worker, publish requests, and wait for answers and refusals."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import msgspec

from headrace.client import Published, connect
from headrace_load.target import System, make_topics
from headrace_load.waiting import slowness, until
from headrace_schemas.records import ClassifyResult
from load.chaos.fault import World
from load.chaos.proxy import Passing, Way
from load.chaos.workers import Worker

LIMIT_S = 60.0


async def at(
    world: World, worker: Worker, way: Way, api: int, act: Callable[[], Coroutine[Any, Any, bool]], *, least: int = 0
) -> None:
    """Call ``act`` once, when a frame of ``worker`` passes of that kind and of at least ``least`` bytes.

    What ``act`` returns says whether the frame goes on. Raises TimeoutError when none passes, ProgramError when the
    worker ends first, and what ``act`` raises.
    """
    begun = asyncio.Event()
    acting: list[asyncio.Task[bool]] = []

    async def hook(passing: Passing) -> bool:
        meant = passing.way is way and (passing.request.api, passing.request.client) == (api, worker.name)
        if begun.is_set() or not meant or passing.size < least:
            return True
        # A task of its own: what it does may end this very connection, and the forwarding with it.
        acting.append(asyncio.create_task(act()))
        begun.set()
        return await asyncio.shield(acting[0])

    for proxy in world.cluster.proxies:
        proxy.hook = hook
    try:
        frame = f"a frame of {worker.name} {way.value} (API {api}, at least {least} bytes)"
        await until(begun.is_set, frame, LIMIT_S, worker.check)
        await acting[0]
    finally:
        for proxy in world.cluster.proxies:
            proxy.hook = None


ANSWERED_S = 60.0
REFUSED_S = 60.0
REFUSED = 3
"""The exit code of who needs a person."""


async def refused(workers: Iterable[Worker], *words: str) -> str:
    """Wait until each worker ended because it refuses to go on; each must have said all ``words``. Returns a message.

    Raises TimeoutError, and AssertionError when one ended otherwise or said something else.
    """
    message = ""
    for worker in workers:
        code = await worker.ended(REFUSED_S)
        lines = worker.said().splitlines()
        message = " ".join(line for line in lines if line.startswith("headrace: "))
        assert code == REFUSED, f"{worker.name} ended with {code} and not with {REFUSED}: {message}"
        for word in words:
            assert word in message, f"{worker.name} refused without saying {word!r}: {message}"
    return message


async def published(world: World, texts: Iterable[str], *, partition: int | None = None) -> list[Published]:
    """Publish requests beside the stream."""
    system = world.system
    async with connect(system.bootstrap, requests=system.requests, results=system.results) as client:
        return await client.publish_many(texts, partition=partition)


async def answered(
    system: System, requests: Iterable[Published], *, limit_s: float = ANSWERED_S
) -> list[ClassifyResult]:
    """Wait for the answers to ``requests`` in the results of ``system``, as a reader that begins at the beginning.

    Raises AssertionError when there is none to one of them, or one to something else.
    """
    missing = {(request.partition, request.offset): request.crc for request in requests}
    found: list[ClassifyResult] = []
    deadline = time.monotonic() + limit_s * slowness()
    async with (
        connect(system.bootstrap, requests=system.requests, results=system.results) as client,
        client.reader("beginning") as reader,
    ):
        while missing and time.monotonic() < deadline:
            for answer in await reader.read():
                crc = missing.pop((answer.partition, answer.result.offset), None)
                if crc is not None:
                    assert crc == answer.result.crc, f"{answer.result} answers another request"
                    found.append(answer.result)
    assert not missing, f"nobody answered in time the requests at {sorted(missing)[:5]}"
    return found


async def begun_anew(world: World, texts: Iterable[str]) -> None:
    """Do what a refusal asks for, a new group with results of its own, and see that it answers."""
    system = msgspec.structs.replace(world.system, results=f"{world.system.results}-anew")
    await make_topics(system, len(await world.cluster.leaders(world.system.requests)))
    await world.workers.start(
        "anew",
        options=("--group", f"{world.workers.group}-anew", "--results", system.results),
    )
    await answered(system, await published(world, texts))
