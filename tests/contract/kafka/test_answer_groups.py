"""Readers of one group share the answer log on every broker: they join, leave and are killed."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager

import pytest

from headrace.client import Client
from headrace.kafka.interface import Cluster, Producer, TopicPartition
from tests.support.answer_log import answer
from tests.support.memory_kafka import MemoryCluster
from tests.support.waiting import until, within

PARTITIONS = 4
LIMIT_S = 30.0
Place = tuple[int, int]


class Seen:
    """What one reader had, and how to end it."""

    def __init__(self) -> None:
        self.places: list[Place] = []
        self.end: Callable[[], Awaitable[None]]


class Stage:
    """A results topic that is written in rounds, and what its readers had."""

    def __init__(self, producer: Producer, topic: str) -> None:
        self._producer = producer
        self._topic = topic
        self.written: list[Place] = []
        self.readers: list[Seen] = []

    async def round(self) -> None:
        """Append an answer to each partition, and wait until somebody had each that was ever written."""
        number = len(self.written) // PARTITIONS
        for partition in range(PARTITIONS):
            await self._producer.send(self._topic, answer(number, number - 1), partition=partition)
            self.written.append((partition, number))
        await until(lambda: set(self.written) == {place for seen in self.readers for place in seen.places}, LIMIT_S)

    async def until_shared(self, *readers: Seen) -> None:
        """Write until each of ``readers`` has had an answer that none of the others had."""
        before = [len(seen.places) for seen in readers]
        async with within(LIMIT_S, "an answer of its own for each reader"):
            while any(len(seen.places) == had for seen, had in zip(readers, before, strict=True)):
                await self.round()

    async def join(self, cluster: Cluster, group: str) -> Seen:
        """A reader in this process, which leaves in order at its end."""
        seen = Seen()

        async def read() -> None:
            async with (
                Client(cluster, results=self._topic) as client,
                aclosing(client.answers("beginning", group=group)) as answers,
            ):
                async for one in answers:
                    seen.places.append((one.partition, one.result.offset))

        task = asyncio.create_task(read())

        async def end() -> None:
            task.cancel()
            await asyncio.wait([task])

        seen.end = end
        self.readers.append(seen)
        return seen

    async def join_by_process(self, bootstrap: str, group: str) -> Seen:
        """A reader in a process of its own, which is killed at its end."""
        seen = Seen()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.support.group_member", bootstrap, self._topic, group,
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        lines = process.stdout
        assert lines is not None

        async def read() -> None:
            async for line in lines:
                partition, offset = map(int, line.split())
                seen.places.append((partition, offset))

        reading = asyncio.create_task(read())

        async def end() -> None:
            if process.returncode is None:
                process.kill()
                await process.wait()
            await reading

        seen.end = end
        self.readers.append(seen)
        return seen


@asynccontextmanager
async def staged(producer: Producer, topic: str) -> AsyncIterator[Stage]:
    stage = Stage(producer, topic)
    try:
        yield stage
    finally:
        for seen in stage.readers:
            await seen.end()


async def test_readers_who_join_and_leave_share_the_answers_and_see_none_twice(new_topic, producer, cluster, name):
    async with staged(producer, await new_topic(partitions=PARTITIONS)) as stage:
        first = await stage.join(cluster, name)
        await stage.round()
        second = await stage.join(cluster, name)
        await stage.until_shared(first, second)
        await first.end()
        await stage.round()
        assert Counter(stage.written) == Counter(first.places + second.places)


@pytest.mark.needs("commit metadata")
async def test_who_takes_over_knows_what_was_seen_however_far_behind_a_zombie_writes(
    new_topic, producer, cluster, name
):
    topic = await new_topic()

    async def append(*offsets: int) -> None:
        await producer.send_batch(topic, 0, [answer(offset, offset - 1) for offset in offsets])

    async def read_up_to(last: int, end: int) -> list[int]:
        """What a member of the group has, up to request ``last`` and the end of the log."""
        seen: list[int] = []
        async with (
            Client(cluster, results=topic, max_batch=1) as client,
            client.group_reader(name, "beginning") as member,
            within(LIMIT_S, f"the reading up to request {last} by a group"),
        ):
            while last not in seen or await committed() < end:
                for one in await member.read():
                    seen.append(one.result.offset)
                    member.mark(one)
                await member.commit()
        return seen

    async def committed() -> int:
        looking = cluster.consumer(group=name)
        await looking.start()
        try:
            found = await looking.committed([TopicPartition(topic, 0)])
            return sum(one.offset for one in found.values())
        finally:
            await looking.stop()

    # A look-back of max_batch 1 is four answers: it ends at 5, and 6 to 9 would be news.
    await append(*range(10), *range(6))
    assert await read_up_to(9, 16) == list(range(10))
    await append(*range(6, 11))
    assert await read_up_to(10, 21) == [10]


@pytest.mark.parametrize(
    "backend",
    [
        "memory",
        pytest.param("embedded", marks=pytest.mark.slow),  # it waits half a session at each rebalance
        pytest.param("apache", marks=pytest.mark.apache),
    ],
    indirect=True,
)
async def test_a_reader_that_is_killed_loses_no_answer_and_others_see_only_its_own_again(
    new_topic, producer, cluster, name, backend, request
):
    async with staged(producer, await new_topic(partitions=PARTITIONS)) as stage:
        if isinstance(cluster, MemoryCluster):
            killed = await stage.join(cluster.node("killed"), name)
        else:
            killed = await stage.join_by_process(request.getfixturevalue(f"{backend}_bootstrap"), name)
        await stage.round()
        stayed = await stage.join(cluster, name)
        await stage.until_shared(killed, stayed)
        if isinstance(cluster, MemoryCluster):
            cluster.node("killed").kill()
        await killed.end()
        joined = await stage.join(cluster, name)
        await stage.until_shared(stayed, joined)
        alive = Counter(stayed.places + joined.places)
        assert set(stage.written) == alive.keys() | set(killed.places)
        assert set(alive.values()) == {1}
        for seen in (killed, stayed, joined):
            for partition in range(PARTITIONS):
                offsets = [offset for number, offset in seen.places if number == partition]
                assert offsets == sorted(set(offsets))
