"""The twin's harsher side: what Kafka does to members that fall silent and to logs that are cut."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.kafka.interface import BrokerUnavailableError, Consumer, Outgoing, RebalancedError, TopicPartition
from tests.support.memory_kafka import MemoryCluster
from tests.support.memory_kafka.broker import assign_round_robin
from tests.support.twin import P0, Seeker, join, produce, simulated


def test_a_frozen_member_is_evicted_after_its_session_and_cannot_commit_when_it_thaws():
    async def story(cluster: MemoryCluster) -> None:
        frozen, seeker = await join(cluster.node("a"))
        other, _ = await join(cluster.node("b"))
        await cluster.clock.sleep(3)
        assert len(frozen.assignment()) == len(other.assignment()) == 1
        held = frozen.assignment()
        cluster.node("a").freeze()
        await cluster.clock.sleep(5.9)
        assert len(other.assignment()) == 1
        await cluster.clock.sleep(2)
        assert len(other.assignment()) == 2
        cluster.node("a").thaw()
        assert frozen.assignment() == held  # it has not noticed yet
        with pytest.raises(RebalancedError):
            await frozen.commit(dict.fromkeys(held, 1))
        await cluster.clock.sleep(3)
        assert len(frozen.assignment()) == 1
        assert seeker.told[-2:] == ["revoked", "assigned"]

    simulated(story)


def test_a_zombie_still_fetches_and_nothing_fences_its_produce():
    async def story(cluster: MemoryCluster) -> None:
        await produce(cluster, 5)
        zombie, _ = await join(cluster.node("a"))
        producer = cluster.node("a").producer()
        await cluster.clock.sleep(1)
        cluster.node("a").freeze()
        await cluster.clock.sleep(7)
        successor, _ = await join(cluster.node("b"))
        await cluster.clock.sleep(1)
        cluster.node("a").thaw()
        fetched = await zombie.fetch(max_records=5, timeout_s=0.0)
        assert [record.offset for record in fetched[P0]] == [0, 1, 2, 3, 4]
        assert (await producer.send("t", Outgoing(b"z"), partition=0)).offset == 5
        assert len(successor.assignment()) == 2

    simulated(story)


def test_a_killed_node_s_calls_end_cancelled_and_its_partitions_move():
    async def story(cluster: MemoryCluster) -> None:
        killed, _ = await join(cluster.node("a"))
        other, _ = await join(cluster.node("b"))
        await cluster.clock.sleep(3)
        waiting = asyncio.create_task(killed.fetch(max_records=1, timeout_s=60.0))
        await cluster.clock.sleep(0.1)
        cluster.node("a").kill()
        await asyncio.wait([waiting], timeout=1)
        assert waiting.cancelled()
        with pytest.raises(asyncio.CancelledError):
            await killed.commit({})
        assert cluster.node("a") is not killed
        await cluster.clock.sleep(8)
        assert len(other.assignment()) == 2

    simulated(story)


def test_a_static_member_that_comes_back_in_time_causes_no_rebalance():
    async def story(cluster: MemoryCluster) -> None:
        first, _ = await join(cluster.node("a"), member="slot-a")
        other, seeker = await join(cluster.node("b"), member="slot-b")
        await cluster.clock.sleep(3)
        held, told = first.assignment(), list(seeker.told)
        cluster.node("a").kill()
        await cluster.clock.sleep(4)
        back, _ = await join(cluster.node("a"), member="slot-a")
        await cluster.clock.sleep(10)
        assert back.assignment() == held
        assert seeker.told == told
        await other.commit(dict.fromkeys(other.assignment(), 1))

    simulated(story)


def test_two_processes_of_one_static_id_take_it_from_each_other_until_one_gives_it_up(caplog):
    async def story(cluster: MemoryCluster) -> None:
        first, told = await join(cluster.node("a"), member="slot")
        await cluster.clock.sleep(1)
        second, _ = await join(cluster.node("b"), member="slot")
        await cluster.clock.sleep(10)
        assert len(first.assignment()) == len(second.assignment()) == 1
        calm = list(told.told)
        await cluster.clock.sleep(30)
        assert told.told == calm
        await first.commit(dict.fromkeys(first.assignment(), 1))
        await second.commit(dict.fromkeys(second.assignment(), 1))

    simulated(story)
    assert [getattr(record, "event", "") for record in caplog.records if "static" in getattr(record, "event", "")] == [
        "member.static_id_given_up"
    ]


def test_a_member_that_loses_the_coordinator_keeps_its_partitions_and_not_its_lease():
    async def story(cluster: MemoryCluster) -> None:
        cut_off, seeker = await join(cluster.node("a"))
        other, _ = await join(cluster.node("b"))
        await cluster.clock.sleep(3)
        held = cut_off.assignment()
        cluster.node("a").cut_coordinator()
        while cut_off.lease_left_s() > 0:
            assert len(other.assignment()) == 1
            await cluster.clock.sleep(0.01)
        await cluster.clock.sleep(2)
        assert len(other.assignment()) == 2
        assert cut_off.assignment() == held
        with pytest.raises(BrokerUnavailableError, match="coordinator"):
            await cut_off.commit(dict.fromkeys(held, 1))
        cluster.node("a").restore_coordinator()
        await cluster.clock.sleep(3)
        assert len(cut_off.assignment()) == len(other.assignment()) == 1
        assert seeker.told[-2:] == ["revoked", "assigned"]

    simulated(story)


def test_a_revoke_that_takes_longer_than_a_rebalance_costs_the_member_its_place():
    async def story(cluster: MemoryCluster) -> None:
        class Slow(Seeker):
            async def revoked(self, partitions: Collection[TopicPartition]) -> None:
                await cluster.clock.sleep(25)

        slow = cluster.node("a").consumer(group="g")
        await slow.subscribe(["t"], Slow(slow))
        await cluster.clock.sleep(1)
        other, _ = await join(cluster.node("b"))
        await cluster.clock.sleep(12)
        assert len(other.assignment()) == 2
        with pytest.raises(RebalancedError):
            await slow.commit({P0: 1})
        await cluster.clock.sleep(20)
        assert len(slow.assignment()) == 1

    simulated(story)


def test_an_assigned_callback_longer_than_a_session_loses_the_membership():
    async def story(cluster: MemoryCluster) -> None:
        class Slow(Seeker):
            async def assigned(self, partitions: Collection[TopicPartition]) -> None:
                self.told.append("assigned")
                await cluster.clock.sleep(7)

        slow = cluster.node("a").consumer(group="g")
        seeker = Slow(slow)
        await slow.subscribe(["t"], seeker)
        await cluster.clock.sleep(6.5)
        with pytest.raises(RebalancedError):
            await slow.commit({P0: 1})
        await cluster.clock.sleep(2)
        assert seeker.told == ["assigned", "revoked", "assigned"]

    simulated(story)


def test_what_a_callback_raises_is_kept_for_the_test_and_the_member_lives_on():
    async def story(cluster: MemoryCluster) -> None:
        class Failing(Seeker):
            async def assigned(self, partitions: Collection[TopicPartition]) -> None:
                raise ValueError("a fault in the service")

        consumer = cluster.consumer(group="g")
        await consumer.subscribe(["t"], Failing(consumer))
        await cluster.clock.sleep(1)
        assert [str(error) for error in cluster.callback_errors] == ["a fault in the service"]
        assert len(consumer.assignment()) == 2

    simulated(story)


def test_a_fetch_that_a_rebalance_overtakes_may_deliver_from_the_committed_position():
    async def overtaken(cluster: MemoryCluster) -> None:
        await produce(cluster, 5)
        consumer, _ = await join(cluster.node("a"))
        await cluster.clock.sleep(1)
        await consumer.commit({P0: 2})
        consumer.seek(P0, 5)

        class Unmoved(Seeker):
            async def assigned(self, partitions: Collection[TopicPartition]) -> None: ...

        consumer._membership._listener = Unmoved(consumer)
        waiting = asyncio.create_task(consumer.fetch(max_records=9, timeout_s=20.0))
        await cluster.clock.sleep(0.1)
        cluster.rebalance_readers("t")
        seen.append([record.offset for record in (await waiting).get(P0, [])])

    seen: list[list[int]] = []
    for seed in range(20):
        simulated(overtaken, seed=seed)
    assert [2, 3, 4] in seen
    assert [] in seen


class LostAcknowledgement:
    """Raises once, after the effect of a produce."""

    def __init__(self) -> None:
        self.left = 1

    async def point(self, member: str, name: str) -> None:
        if name == "produce.after" and self.left:
            self.left -= 1
            raise BrokerUnavailableError("the acknowledgement got lost")


def test_an_error_after_the_effect_is_a_lost_acknowledgement():
    async def story(cluster: MemoryCluster) -> None:
        producer = cluster.producer()
        with pytest.raises(BrokerUnavailableError):
            await producer.send_batch("t", 0, [Outgoing(b"v")] * 3)
        assert cluster.log(P0).end == 3
        assert (await producer.send("t", Outgoing(b"w"), partition=0)).offset == 3

    simulated(story, faults=LostAcknowledgement())


def test_a_failed_batch_leaves_a_prefix_and_no_gap():
    async def story(cluster: MemoryCluster) -> None:
        with pytest.raises(BrokerUnavailableError):
            await cluster.producer().send_batch("t", 0, [Outgoing(b"%d" % number) for number in range(10)])
        assert [record.value for record in cluster.log(P0).read(0, 99)] == [b"0", b"1", b"2", b"3"]

    simulated(story, faults=LostAcknowledgement(), batch_records=4)


@given(
    readers=st.dictionaries(st.text("abc", min_size=1, max_size=3), st.lists(st.sampled_from("xyz"), unique=True)),
    counts=st.fixed_dictionaries({topic: st.integers(0, 7) for topic in "xyz"}),
)
def test_an_assignment_gives_every_partition_to_exactly_one_reader(readers, counts):
    def partitions_of(topic: str) -> list[TopicPartition]:
        return [TopicPartition(topic, number) for number in range(counts[topic])]

    dealt = assign_round_robin(readers, partitions_of)
    given_out = [partition for partitions in dealt.values() for partition in partitions]
    read = {topic for topics in readers.values() for topic in topics}
    assert sorted(given_out) == sorted(partition for topic in read for partition in partitions_of(topic))
    assert all(partition.topic in readers[slot] for slot, partitions in dealt.items() for partition in partitions)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), steps=st.lists(st.sampled_from(["freeze", "thaw", "kill", "join"]), max_size=8))
def test_whatever_happens_every_partition_ends_with_one_living_owner(seed, steps):
    async def story(cluster: MemoryCluster) -> None:
        rng = random.Random(seed)
        living: dict[str, Consumer] = {}
        for number, step in enumerate(["join", *steps, "join"]):
            name = rng.choice(sorted(living)) if living and step != "join" else f"n{number}"
            if step == "join":
                living[name], _ = await join(cluster.node(name), member=name if rng.random() < 0.5 else None)
            elif step == "kill":
                cluster.node(name).kill()
                living.pop(name, None)
            elif name in living:
                getattr(cluster.node(name), step)()
            await cluster.clock.sleep(rng.uniform(0, 8))
        for name in living:
            cluster.node(name).thaw()
        await cluster.clock.sleep(40)
        owned = [partition for consumer in living.values() for partition in consumer.assignment()]
        assert sorted(owned) == [TopicPartition("t", number) for number in range(3)]
        for consumer in living.values():
            await consumer.commit(dict.fromkeys(consumer.assignment(), 1))

    simulated(story, seed=seed, partitions=3)
