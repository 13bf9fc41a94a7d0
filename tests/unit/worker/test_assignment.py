"""How long the group waits for a worker that gives partitions up."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from headrace.kafka.interface import BrokerUnavailableError, TopicPartition
from headrace.worker.metrics import WorkerMetrics
from headrace.worker.partitions.assignment import Assignment
from tests.support.turned_loop import TurnedClock, run_turned
from tests.support.twin import MemoryCluster

NAME = TopicPartition("t", 0)
LIMIT_S = 5.0


async def never(*_):
    await asyncio.Event().wait()


@pytest.mark.parametrize("sends", [True, False])
def test_sends_and_release_have_one_limit_together(sends):
    """The group evicts a member that takes longer than its rebalance timeout, which is twice the limit by default."""
    released = []

    async def release(partitions):
        released.extend(partitions)
        await never()

    async def play():
        clock = TurnedClock()
        assignment = Assignment(
            MemoryCluster(clock).consumer(),
            resume=never,
            release=release,
            sleep=clock.sleep,
            revoke_timeout=LIMIT_S,
            metrics=WorkerMetrics(CollectorRegistry()),
        )
        await assignment.assigned([NAME])
        partition = assignment.partitions[NAME]
        if sends:
            partition.in_flight.send(asyncio.create_task(never()))
        begun = clock.monotonic()
        await assignment.revoked([NAME])
        assert clock.monotonic() - begun <= LIMIT_S
        # What was tried is taken back also where no acknowledgement comes.
        assert released == [partition]
        await assignment.stop()

    run_turned(play())


def assigning(play, resume):
    """Play ``play(assignment, clock)`` with an assignment that resumes partitions by ``resume``."""

    async def main():
        clock = TurnedClock()
        assignment = Assignment(
            MemoryCluster(clock).consumer(),
            resume=resume,
            release=never,
            sleep=clock.sleep,
            revoke_timeout=LIMIT_S,
            metrics=WorkerMetrics(CollectorRegistry()),
        )
        await play(assignment, clock)
        await assignment.stop()

    run_turned(main())


def test_a_broker_that_stays_away_does_not_fill_the_log(caplog):
    tries = []

    async def resume(partitions):
        tries.append(partitions)
        raise BrokerUnavailableError("no leader")

    async def play(assignment, clock):
        await assignment.assigned([NAME])
        await clock.sleep(60)

    assigning(play, resume)
    assert len(tries) > 100
    assert [record.event for record in caplog.records].count("resume.failed") == 1


def test_what_is_assigned_to_a_worker_that_ends_is_not_resumed():
    tries = []

    async def resume(partitions):
        tries.append(partitions)
        await never()

    async def play(assignment, clock):
        await assignment.stop()
        await assignment.assigned([NAME])
        await clock.sleep(1)
        assert not assignment.partitions

    assigning(play, resume)
    assert not tries
