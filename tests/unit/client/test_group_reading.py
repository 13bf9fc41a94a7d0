"""Answers read by a group, over many interleavings of members that join, leave, freeze and are killed."""

from __future__ import annotations

import asyncio
import logging

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.client import AnswerLogError, Client
from headrace.kafka.interface import KafkaError, TopicPartition, TopicSpec
from tests.support.answer_log import answer
from tests.support.broken_group_readers import BROKEN
from tests.support.group_simulation import Plan, simulate_group
from tests.support.memory_kafka import MemoryCluster
from tests.support.turned_loop import TurnedClock, run_turned

plans = st.builds(
    Plan,
    partitions=st.integers(1, 3),
    batches=st.integers(5, 20),
    members=st.integers(1, 3),
    changes=st.integers(1, 10),
    harm=st.booleans(),
    ahead=st.booleans(),
    grows=st.booleans(),
    latest=st.booleans(),
    commit_errors=st.sampled_from((0.0, 0.05, 0.2)),
    seconds=st.floats(2.0, 12.0),
)
TROUBLED = Plan(members=3, changes=10, ahead=True, latest=True, batches=30)
SEEDS_TO_CATCH = 200


@pytest.fixture(autouse=True)
def quiet():
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32), plan=plans)
def test_no_answer_is_skipped_and_only_what_nobody_committed_comes_again(seed, plan):
    verdict = simulate_group(seed, plan)
    assert not verdict.wrong, verdict


def test_the_simulation_really_meets_answers_that_come_again():
    assert sum(simulate_group(seed, TROUBLED).repeats for seed in range(3)) > 0


def test_members_who_only_join_and_leave_never_process_an_answer_twice():
    calm = Plan(members=3, changes=10, harm=False)
    verdicts = [simulate_group(seed, calm) for seed in range(6)]
    assert [(verdict.repeats, verdict.wrong) for verdict in verdicts] == [(0, [])] * 6
    assert sum(verdict.seen for verdict in verdicts) > 200


@pytest.mark.parametrize("broken", BROKEN, ids=lambda kind: kind.__name__)
def test_a_broken_reader_is_caught(broken):
    assert any(simulate_group(seed, TROUBLED, broken).wrong for seed in range(SEEDS_TO_CATCH))


@pytest.mark.parametrize(
    ("metadata", "seen"),
    [
        ('{"position":30,"highest":29}', [30]),
        ("", [30]),
        ("a note of another tool", [30]),
        ('{"position":7,"highest":99}', [30]),
        ('{"position":30,"highest":19}', list(range(20, 31))),
    ],
)
def test_a_member_goes_on_behind_the_committed_highest_and_looks_back_where_there_is_none(metadata, seen):
    """The look-back holds the last answer; a highest that is lower shows that it is the metadata that counts."""

    async def main() -> None:
        clock = TurnedClock()
        cluster = MemoryCluster(clock)
        cluster.create_topic(TopicSpec(name="results", partitions=1))
        place = TopicPartition("results", 0)
        log = cluster.log(place)
        log.append_batch([answer(offset, offset - 1) for offset in range(30)], 0)
        other = cluster.consumer(group="billing")
        other.assign([place])
        await other.commit({place: 30}, metadata={place: metadata})
        log.append_batch([answer(offset, offset - 1) for offset in range(20, 31)], 0)
        found: list[int] = []
        async with (
            Client(cluster, results="results", max_batch=8, clock=clock) as client,
            client.group_reader("billing") as member,
            asyncio.timeout(100),
        ):
            while 30 not in found:
                found += [one.result.offset for one in await member.read()]
        await cluster.close()
        assert found == seen

    run_turned(main())


def test_a_group_takes_no_partitions_or_places_from_its_members():
    async def main() -> None:
        async with Client(MemoryCluster(TurnedClock()), clock=TurnedClock()) as client:
            for wrong in ({"partitions": [0]}, {"from_": {0: 3}}):
                with pytest.raises(TypeError, match="group"):
                    await anext(client.answers(group="billing", **wrong))
            with pytest.raises(KafkaError, match="no topic"):
                await anext(client.answers(group="billing"))

    run_turned(main())


async def until_it_ends(member):
    while await member.read() == []:
        pass


def test_a_member_whose_topic_is_deleted_is_told_so():
    async def main() -> None:
        clock = TurnedClock()
        cluster = MemoryCluster(clock)
        cluster.create_topic(TopicSpec(name="results", partitions=1))
        cluster.log(TopicPartition("results", 0)).append_batch([answer(0, -1)], 0)
        async with (
            Client(cluster, results="results", clock=clock) as client,
            client.group_reader("billing", "earliest") as member,
            asyncio.timeout(1000),
        ):
            while not await member.read():
                pass
            cluster.delete_topic("results")
            with pytest.raises(AnswerLogError, match="no topic results any more"):
                await until_it_ends(member)
        await cluster.close()

    run_turned(main())
