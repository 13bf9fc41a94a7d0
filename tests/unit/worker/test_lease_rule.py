"""The worker's rule 8 of the answer log: nothing is handed over past the lease's end."""

from __future__ import annotations

import logging

from prometheus_client import CollectorRegistry

from headrace.kafka.interface import TopicPartition
from headrace.worker.metrics import WorkerMetrics
from tests.support.simulation import SETTINGS, TOPICS
from tests.support.worker_cluster import story

SESSION_S = 6.0
"""The twin's."""
BATCH = SETTINGS.max_batch


async def publish_backlog(world, count=120):
    await world.publish(*(f"text {number}" for number in range(count)))


def slowly(world):
    """Offload that takes half a second a batch."""

    async def offload(work):
        await world.clock.sleep(0.5)
        return work()

    return offload


def lost(caplog):
    return [record for record in caplog.records if getattr(record, "event", "") == "lease.lost"]


@story
async def test_rule_8_who_loses_only_the_coordinator_stops_before_another_takes_over(world):
    world.start("cut off", offload=slowly(world))
    await world.running("cut off")
    await publish_backlog(world)
    await world.answered(BATCH)
    world.cluster.node("cut off").cut_coordinator()
    cut_at = world.clock.monotonic()
    await world.until(lambda: world.workers["cut off"].unready is not None)
    assert world.clock.monotonic() - cut_at <= SESSION_S
    stood = len(world.answers())
    world.start("other")
    await world.running("other")
    await world.until(lambda: world.answers()[-1].offset == 119)
    # At most what was on its way came again.
    assert len(world.answers()) <= 120 + BATCH
    assert stood < 120


@story
async def test_rule_8_who_reaches_the_coordinator_again_joins_afresh_and_goes_on(world):
    world.start(offload=slowly(world))
    await world.running()
    await publish_backlog(world)
    await world.answered(BATCH)
    world.cluster.node("w0").cut_coordinator()
    await world.until(lambda: world.workers["w0"].unready is not None)
    assert "coordinator" in world.workers["w0"].unready
    world.cluster.node("w0").restore_coordinator()
    await world.running()
    await world.until(lambda: world.answers()[-1].offset == 119)


def test_rule_8_the_end_of_a_lease_is_said_once_and_counted(caplog):
    registry = CollectorRegistry()

    @story
    async def play(world):
        world.start(offload=slowly(world), metrics=WorkerMetrics(registry))
        await world.running()
        await publish_backlog(world)
        await world.answered(BATCH)
        world.cluster.node("w0").cut_coordinator()
        await world.until(lambda: lost(caplog))
        await world.clock.sleep(30)
        world.cluster.node("w0").restore_coordinator()
        await world.running()
        assert registry.get_sample_value("headrace_leases_lost_total") == 1
        assert registry.get_sample_value("headrace_partitions") == 1

    with caplog.at_level(logging.INFO, "headrace"):
        play()
    [said] = lost(caplog)
    assert said.fields["partitions"] == [0]


@story
async def test_rule_8_the_lease_of_an_idle_worker_is_renewed(world):
    world.start()
    await world.running()
    first = world.workers["w0"]._consumer.lease_left_s()
    for _ in range(40):
        await world.clock.sleep(1.0)
        assert world.workers["w0"].unready is None
    assert first > 0


@story
async def test_rule_8_a_worker_that_was_frozen_past_its_lease_hands_over_no_other_batch(world):
    async def freeze_at_first(member, name):
        if member == "frozen" and name == "produce.before" and len(world.answers()) >= BATCH:
            world.fault = None
            world.cluster.node("frozen").freeze()

    world.start("frozen")
    await world.running("frozen")
    world.fault = freeze_at_first
    await publish_backlog(world)
    await world.until(lambda: world.fault is None)
    stood = len(world.answers())
    world.start("other")
    await world.running("other")
    await world.until(lambda: world.answers()[-1].offset == 119)
    world.cluster.node("frozen").thaw()
    await world.clock.sleep(20)
    assert len(world.answers()) - 120 <= BATCH
    assert stood < 120


@story
async def test_rule_8_the_lease_is_looked_at_again_after_dead_letters(world):
    """The dead letter's acknowledgement takes longer than the lease; its answer must wait for the next owner."""
    held = False

    async def hold(member, name):
        nonlocal held
        if member == "cut off" and name == "produce.after" and world.log(TOPICS.dead_letters) and not held:
            held = True
            world.cluster.node("cut off").cut_coordinator()
            await world.clock.sleep(SESSION_S + 1.0)

    world.start("cut off", publish_timeout=30.0)
    await world.running("cut off")
    world.fault = hold
    await world.publish_value(b"\xff no request")
    await world.until(lambda: held)
    world.start("other")
    await world.answered(1)
    assert world.workers["cut off"].unready is not None
    await world.clock.sleep(10)
    assert len(world.answers()) == 1
    assert world.cluster.log(TopicPartition(TOPICS.results, 0)).end == 1
