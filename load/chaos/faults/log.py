"""What happens to the logs themselves: answers deleted, offsets reset, odd records, odd writers."""

from __future__ import annotations

import asyncio
import sys
import zlib

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from headrace.client import Published
from load.chaos.fault import Fault
from load.chaos.faults.expecting import answered, published, refused
from load.chaos.programs.deadly_text import TEXT
from load.chaos.world import World

TRANSACTION_S = 10.0
SETTLING_S = 2.0
NEAR_WRAP_S = 12.0
CONNECTIONS = 3
DEADLY_S = 120.0
"""Up to five processes have to die of it, and each takes seconds to start."""
TOO_SMALL = "150"
"""Bytes: less than one answer."""
ENOUGH = str(2 << 20)


async def emptied(world: World) -> None:
    """Retention deletes all answers while the workers are killed: the next ones go on from the group's commit."""
    await asyncio.gather(*(worker.kill() for worker in world.workers.running.values()))
    await world.wait(SETTLING_S)
    await world.keep()
    results = world.system.results
    await world.cluster.delete_records(results, dict.fromkeys(await world.cluster.leaders(results), -1))
    await world.staffed()


async def hanging_transaction(world: World) -> None:
    """Other producers use transactions: committed, aborted, and one that nobody ends, so all behind it has to wait."""
    requests = world.system.requests
    partitions = sorted(await world.cluster.leaders(requests))
    async with AIOKafkaProducer(
        bootstrap_servers=world.cluster.bootstrap,
        transactional_id=f"{requests}-hanging",
        transaction_timeout_ms=int(TRANSACTION_S * 1000),
    ) as producer:
        committed: list[Published] = []
        for number in range(6):
            await producer.begin_transaction()
            places = [await _append(producer, requests, partition, number) for partition in partitions]
            if number % 2:
                await producer.abort_transaction()
            else:
                await producer.commit_transaction()
                committed += places
        await producer.begin_transaction()
        for partition in partitions:
            await _append(producer, requests, partition, -1)
    await world.wait(SETTLING_S)
    before = world.stream.answered
    await world.wait(TRANSACTION_S / 2)
    assert world.stream.answered == before, "requests behind an open transaction were answered"
    await world.until(lambda: world.stream.answered > before, "another answer")
    await answered(world.system, committed)


async def _append(producer: AIOKafkaProducer, topic: str, partition: int, number: int) -> Published:
    value = b'{"text": "in a transaction %d"}' % number
    place = await producer.send_and_wait(topic, value, partition=partition)
    return Published(partition, place.offset, zlib.crc32(value))


async def offsets_reset(world: World) -> None:
    """Somebody sets the group's offsets while it is stopped: two partitions to the beginning, two beyond the end."""
    await world.workers.end()
    requests = world.system.requests
    partitions = sorted(await world.cluster.leaders(requests))
    consumer = AIOKafkaConsumer(
        bootstrap_servers=world.cluster.bootstrap, group_id=world.workers.group, enable_auto_commit=False
    )
    await consumer.start()
    try:
        places = [TopicPartition(requests, number) for number in partitions]
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        await consumer.commit({place: place.partition % 2 * (ends[place] + 10_000) for place in places})
    finally:
        await consumer.stop()
    await world.staffed()


async def two_groups(world: World) -> None:
    """A worker of another group is given the same results topic."""
    second = await world.workers.start("second", options=("--group", "another"), ready=False)
    await refused([second], world.system.results, "'another'", world.workers.group, "results topic of its own")
    await world.workers.leave("second")
    world.notes.append("the second stopped with code 3 and named both groups")


async def near_wrap(world: World) -> None:
    """Producers come to the end of their sequence numbers, and are renewed before."""
    await world.wait(NEAR_WRAP_S)
    for worker in world.workers.running.values():
        connections = len(worker.events("producer.connects"))
        assert connections >= CONNECTIONS, f"{worker.name} renewed its producer only {connections} times"
        failed = worker.events("partition.resumes")
        assert not failed, f"{worker.name} went past the end: {failed[0]}"


async def too_large(world: World) -> None:
    """Somebody lowers max.message.bytes of the results below an answer, and raises it again when workers complain."""
    results = world.system.results
    await world.cluster.alter(results, {"max.message.bytes": TOO_SMALL})
    for worker in tuple(world.workers.running.values()):
        code = await worker.ended(30.0)
        assert code == 1, f"{worker.name} ended with {code}"
        for word in (results, "max.message.bytes"):
            assert word in worker.said(), f"{worker.name} ended without naming {word}"
    world.notes.append("workers ended with code 1 and named topic and setting")
    await world.cluster.alter(results, {"max.message.bytes": ENOUGH})
    await world.staffed()


async def deadly(world: World) -> None:
    """A request that kills whoever answers it, between good ones, with two members under a supervisor."""
    for name in tuple(world.workers.running):
        await world.workers.leave(name)
    pair = await world.workers.start("pair", options=("--processes", "2"))
    before = await published(world, ["one before"] * 20, partition=0)
    bad = await published(world, [TEXT], partition=0)
    after = await published(world, ["one behind"] * 20, partition=0)
    (result,) = await answered(world.system, bad, limit_s=DEADLY_S)
    assert (result.status, result.reason) == ("failed", "kills-process"), result
    for result in await answered(world.system, [*before, *after]):
        assert result.status == "ok", result
    died = len(pair.events("member.ended"))
    assert died, "nobody died of the text"
    world.notes.append(f"members died {died} times of it, then it was answered `failed`; its neighbours `ok`")


FAULTS = (
    Fault(
        name="log-results-emptied",
        title="results emptied by retention while workers were killed",
        about="log",
        strike=emptied,
        sequence=False,
    ),
    Fault(
        name="log-hanging-transaction",
        title="a transaction left open before good requests",
        about="log",
        strike=hanging_transaction,
        sequence=False,
    ),
    Fault(
        name="log-offsets-reset",
        title="the group's offsets reset",
        about="log",
        strike=offsets_reset,
        sequence=False,
    ),
    Fault(
        name="log-two-groups",
        title="two groups on one results topic",
        about="log",
        strike=two_groups,
        sequence=False,
    ),
    Fault(
        name="log-sequence-wrap",
        title="producers near the end of their sequence numbers",
        about="log",
        strike=near_wrap,
        program=(sys.executable, "-m", "load.chaos.programs.near_wrap"),
        rate=1_000.0,
        sequence=False,
    ),
    Fault(
        name="log-answer-too-large",
        title="answers too large for the results topic, until it is mended",
        about="log",
        strike=too_large,
        sequence=False,
    ),
    Fault(
        name="log-deadly-request",
        title="a request that kills the process",
        about="log",
        strike=deadly,
        program=(sys.executable, "-m", "load.chaos.programs.deadly_text"),
        sequence=False,
    ),
)
