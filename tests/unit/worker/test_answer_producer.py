"""The worker's producer, replaced when it can't go on: the old one never writes again, and the next one comes."""

from __future__ import annotations

import asyncio

import pytest

from headrace.kafka.interface import (
    BrokerUnavailableError,
    KafkaError,
    NotAuthorizedError,
    ProducerDeadError,
    TopicPartition,
)
from headrace.worker.stages.publish import LONGEST_RETRY_S
from tests.support.memory_kafka.cluster import MemoryProducer
from tests.support.simulation import TOPICS
from tests.support.worker_cluster import WorkerCluster, story

SESSION_S = 6.0
"""The twin's."""


class Producers:
    """The producers of a worker in the order in which they were made. The first is never acknowledged once ``hangs``,
    and ends once it ``dies``; each later one fails to start with what ``failures`` has for it.
    """

    def __init__(self, world: WorkerCluster, *failures: KafkaError) -> None:
        self.failures = list(failures)
        self.made: list[MemoryProducer] = []
        self.hangs = self.dies = False
        self.used_since: list[int] = []
        self.running_at_start: list[list[int]] = []
        node = world.cluster.node("w0")
        node.producer = lambda: self.make(node)

    def make(self, node):
        number, producers = len(self.made), self

        class Made(MemoryProducer):
            async def start(self):
                running = [place for place, made in enumerate(producers.made[:number]) if not made._stopped]
                producers.running_at_start.append(running)
                if number and producers.failures:
                    raise producers.failures.pop(0)
                await super().start()

            async def send_batch(self, topic, partition, records):
                if producers.dies and number == 0:
                    raise ProducerDeadError("the producer ended")
                if producers.hangs:
                    producers.used_since.append(number)
                    if number == 0:
                        await asyncio.Event().wait()
                return await super().send_batch(topic, partition, records)

        self.made.append(Made(node))
        return self.made[-1]


@story
async def test_a_producer_whose_successors_fail_to_start_is_never_used_again_and_the_worker_recovers(world):
    away = BrokerUnavailableError("nobody answers at broker:9092")
    producers = Producers(world, away, away)
    world.start()
    await world.publish("a", "b")
    await world.answered(2)
    producers.hangs = True
    await world.publish("c")
    worker = world.workers["w0"]
    await world.until(lambda: len(producers.made) > 1)
    assert worker.unready == ("answers can't be published, a producer is being started: nobody answers at broker:9092")
    assert [answer.offset for answer in await world.answered(3)] == [0, 1, 2]
    assert len(producers.made) == 4
    assert producers.used_since.count(0) == 1
    # A producer that still runs may bring its batch to the log behind what the next one wrote.
    assert producers.running_at_start == [[], [], [], []]
    await world.running()


@story
async def test_a_producer_is_not_started_more_often_than_the_broker_can_bear(world):
    producers = Producers(world, *[BrokerUnavailableError("away")] * 1000)
    world.start(watchdog=10_000)
    await world.running()
    producers.hangs = True
    await world.publish("a")
    await world.clock.sleep(600)
    assert 2 < len(producers.made) < 2 * 600 / LONGEST_RETRY_S
    producers.failures.clear()
    await world.answered(1)


@story
async def test_a_producer_that_may_not_start_ends_the_worker_with_the_reason(world):
    producers = Producers(world, NotAuthorizedError("the cluster refuses us"))
    run = world.start()
    await world.running()
    producers.hangs = True
    await world.publish("a")
    with pytest.raises(NotAuthorizedError, match="the cluster refuses us"):
        await asyncio.wait_for(run, 60)


@story
async def test_rule_8_what_waited_for_a_producer_is_not_handed_over_past_the_lease(world):
    producers = Producers(world, *[BrokerUnavailableError("away")] * 1000)
    admin = world.cluster.admin()
    for topic in (TOPICS.results, TOPICS.dead_letters, TOPICS.requests):
        await admin.add_partitions(topic, 2)
    world.start("w0", publish_timeout=60.0)
    await world.running("w0")
    for partition in (0, 1):
        await world.publish("a", partition=partition)
    await world.until(lambda: [end(world, partition) for partition in (0, 1)] == [1, 1])
    # One partition's batch ends the producer, and the other's waits for the next one.
    producers.dies = True
    for partition in (0, 1):
        await world.publish("b", partition=partition)
    await world.until(lambda: len(producers.made) > 3)
    world.cluster.node("w0").cut_coordinator()
    await world.clock.sleep(SESSION_S + 1.0)
    world.start("other")
    await world.until(lambda: [end(world, partition) for partition in (0, 1)] == [2, 2])
    producers.failures.clear()
    await world.until(lambda: world.workers["w0"]._producer.missing is None)
    await world.clock.sleep(10)
    assert [end(world, partition) for partition in (0, 1)] == [2, 2]


def end(world: WorkerCluster, partition: int) -> int:
    return world.cluster.log(TopicPartition(TOPICS.results, partition)).end


@story
async def test_past_the_lease_no_attempt_is_taken_back(world):
    """The next owner may have written one of its own in its place."""
    world.start("w0")
    await world.running("w0")
    await world.publish("a")
    await world.answered(1)
    before = len(world.log(TOPICS.workers))
    world.cluster.node("w0").cut_coordinator()
    await world.until(lambda: world.workers["w0"].unready is not None)
    await world.clock.sleep(10)
    assert len(world.log(TOPICS.workers)) == before
