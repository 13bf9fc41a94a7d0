"""What happens to the logs: answers deleted or lost in unclean elections, offsets reset, odd records, odd writers."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from numpy.typing import NDArray

from headrace.client import Published
from load.chaos import broken
from load.chaos.broken import DEADLY_TEXT
from load.chaos.checker import read_answers
from load.chaos.faults.actions import answered, published, refused
from load.chaos.world import Fault, World, declares

FAULTS: list[Fault] = []
fault = declares(FAULTS)

TRANSACTION_S = 10.0
SETTLING_S = 2.0
NEAR_WRAP_S = 12.0
CONNECTIONS = 3
DEADLY_S = 120.0
"""Up to five processes have to die of the request, and each takes seconds to start."""
TOO_SMALL = "150"
"""Bytes: less than one answer."""
ENOUGH = str(2 << 20)


@fault("log-results-emptied", "results emptied by retention while workers were killed")
async def emptied(world: World) -> None:
    """Retention deletes all answers while the workers are killed: the next ones go on from the group's commit."""
    await asyncio.gather(*(worker.kill() for worker in world.workers.running.values()))
    await world.wait(SETTLING_S)
    await world.keep()
    results = world.system.results
    await world.cluster.delete_records(results, dict.fromkeys(await world.cluster.leaders(results), -1))
    await world.staffed()


@fault("log-hanging-transaction", "a transaction left open before good requests")
async def hanging_transaction(world: World) -> None:
    """Other producers use transactions: one is committed, one aborted, and one is left open, so all behind it waits."""
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


@fault("log-offsets-reset", "the group's offsets reset")
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


@fault("log-two-groups", "two groups on one results topic")
async def two_groups(world: World) -> None:
    """A worker of another group is given the same results topic."""
    second = await world.workers.start("second", options=("--group", "another"), ready=False)
    await refused([second], world.system.results, "'another'", world.workers.group, "results topic of its own")
    await world.workers.leave("second")
    world.notes.append("the second stopped with code 3 and named both groups")


@fault(
    "log-sequence-wrap",
    "producers near the end of their sequence numbers",
    program=broken.command("near_wrap"),
    rate=1_000.0,
)
async def near_wrap(world: World) -> None:
    """Producers are renewed before they reach the end of their sequence numbers."""
    await world.wait(NEAR_WRAP_S)
    for worker in world.workers.running.values():
        connections = len(worker.events("producer.connects"))
        assert connections >= CONNECTIONS, f"{worker.name} renewed its producer only {connections} times"
        failed = worker.events("partition.resumes")
        assert not failed, f"{worker.name} went past the end: {failed[0]}"


@fault("log-answer-too-large", "answers too large for the results topic, until it is mended")
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


@fault("log-deadly-request", "a request that kills the process", program=broken.command("deadly_text"))
async def deadly(world: World) -> None:
    """Among good requests one kills every process that answers it; two members run under a supervisor."""
    for name in tuple(world.workers.running):
        await world.workers.leave(name)
    pair = await world.workers.start("pair", options=("--processes", "2"))
    before = await published(world, ["one before"] * 20, partition=0)
    bad = await published(world, [DEADLY_TEXT], partition=0)
    after = await published(world, ["one behind"] * 20, partition=0)
    (result,) = await answered(world.system, bad, limit_s=DEADLY_S)
    assert (result.status, result.reason) == ("failed", "kills-process"), result
    for result in await answered(world.system, [*before, *after]):
        assert result.status == "ok", result
    died = len(pair.events("member.ended"))
    assert died, "nobody died of the text"
    world.notes.append(f"members died {died} times of it, then it was answered `failed`; its neighbours `ok`")


TAIL_S = 3.0
ELECTED_S = 60.0
READER_S = 10.0


@fault("log-results-lost-tail", "results lost their tail (an unclean election)", nodes=3)
async def tail_lost(world: World) -> None:
    """The results' only replica in sync dies, and one that lacks the last answers is elected (uncleanly)."""
    await _elect_uncleanly(world, lambda _: world.wait(TAIL_S))
    held = world.stream.accepted()
    await world.stream.read_again()
    await world.wait(SETTLING_S)
    now, _ = await read_answers(world.system)
    names = ["partition", "position", "appended_us"]
    lost = len(np.setdiff1d(held[names], now[names]))
    assert lost, "no answer was lost, so nothing happened"
    world.notes.append(f"{lost:,} answers vanished; the reader said that the log was cut, workers answered anew")


@fault(
    "log-results-lost-tail-to-strangers",
    "results lost their tail to a leader that knows no producer",
    nodes=3,
    expect="said",
)
async def tail_lost_to_strangers(world: World) -> None:
    """The same, and the elected node does not know the producers, so it accepts their next answers: a hole is left."""
    names = tuple(world.workers.running)

    async def renewed(leader: int) -> None:
        await world.workers.end()
        # One of the other addresses belongs to the node that hangs, and asking it takes long.
        first = {"HEADRACE_KAFKA__BOOTSTRAP": f"127.0.0.1:{world.cluster.proxies[leader].port}"}
        await asyncio.gather(*(world.workers.start(name, environment=first) for name in names))
        await world.wait(TAIL_S)

    await _elect_uncleanly(world, renewed)
    await world.stream.read_again()
    await world.wait(SETTLING_S)
    now, _ = await read_answers(world.system)
    holes = _holes(now)
    assert holes, "no hole was left, so nothing happened"
    said = {event["partition"] for name in names for event in world.workers.running[name].events("results.cut")}
    assert said >= {partition for partition, *_ in holes}, f"holes {holes}, but workers spoke of partitions {said} only"
    world.said += holes
    world.notes.append("workers said that answers are gone, and readers are told of the hole")


async def _elect_uncleanly(world: World, tail: Callable[[int], Coroutine[Any, Any, None]]) -> None:
    """Lose the results that are appended during ``tail``, which gets the leader, and wait until the reader says so."""
    cluster, results = world.cluster, world.system.results
    leader, behind, _ = world.rng.sample(range(3), 3)
    await cluster.reassign(results, dict.fromkeys(await cluster.leaders(results), (leader, behind)))
    await cluster.alter(results, {"unclean.leader.election.enable": "true", "min.insync.replicas": "1"})
    cluster.brokers.pause(behind)
    await _led_by(world, leader)
    await tail(leader)
    cluster.brokers.kill(leader)
    cluster.brokers.resume(behind)
    await _led_by(world, behind)
    message = await world.stream.refused(READER_S)
    assert "was cut or made anew" in message, message
    await cluster.brokers.start(leader)
    await cluster.alter(results, {"unclean.leader.election.enable": "false"})


async def _led_by(world: World, node: int) -> None:
    async def led() -> bool:
        return set((await world.cluster.leaders(world.system.results)).values()) == {node}

    await world.until(led, f"the election of node {node}", ELECTED_S)


def _holes(log: NDArray[np.void]) -> list[tuple[int, int, int]]:
    """Ranges of requests that a reader from the beginning is told have no answer, as rows of LOST."""
    holes = []
    highest: dict[int, int] = {}
    for row in log:
        partition, offset, after = int(row["partition"]), int(row["offset"]), int(row["after"])
        before = highest.get(partition, -1)
        if offset > before:
            if after > before:
                holes.append((partition, before + 1, after))
            highest[partition] = offset
    return holes
