from __future__ import annotations

import asyncio
import contextlib

import pytest

from headrace.kafka.interface import (
    Committed,
    KafkaError,
    Outgoing,
    RebalancedError,
    TopicPartition,
    TopicSpec,
    UnknownTopicError,
)
from tests.contract.kafka.helpers import LIMIT_S, Member, join, read
from tests.support.waiting import until, within


def partitions(topic: str, count: int) -> frozenset[TopicPartition]:
    return frozenset(TopicPartition(topic, number) for number in range(count))


async def test_one_member_gets_every_partition_and_reads_them(new_topic, producer, cluster, name):
    topic = await new_topic(partitions=3)
    await producer.send_many(topic, [Outgoing(b"v") for _ in range(12)])
    member = await join(cluster, name, topic)
    await member.until(lambda: member.assigned_now == partitions(topic, 3))
    assert member.consumer.assignment() == partitions(topic, 3)
    assert {record.partition for record in await read(member.consumer, 12)} == {0, 1, 2}
    await member.consumer.stop()


@pytest.mark.needs("group assignments")
async def test_a_group_is_described_with_its_members_and_their_partitions(new_topic, cluster, admin, name):
    topic = await new_topic(partitions=3)
    assert (await admin.describe_group(name)).members == ()
    member = await join(cluster, name, topic)
    await member.until(lambda: member.assigned_now == partitions(topic, 3))
    try:
        found = await admin.describe_group(name)
        assert found.state == "Stable"
        assert [set(one.partitions) for one in found.members] == [partitions(topic, 3)]
    finally:
        await member.consumer.stop()


async def test_two_members_share_and_the_one_that_stays_takes_over(new_topic, cluster, name):
    topic = await new_topic(partitions=4)
    first = await join(cluster, name, topic)
    await first.until(lambda: first.assigned_now == partitions(topic, 4))
    second = await join(cluster, name, topic)
    await second.until(lambda: len(second.assigned_now) == 2)
    await first.until(lambda: len(first.assigned_now) == 2)
    assert first.assigned_now | second.assigned_now == partitions(topic, 4)
    # Eager: everything is revoked before anything is assigned anew.
    assert ("revoked", partitions(topic, 4)) in first.events
    await second.consumer.stop()
    await first.until(lambda: first.assigned_now == partitions(topic, 4))
    await first.consumer.stop()


async def test_a_member_more_than_partitions_waits_with_none(new_topic, cluster, name):
    topic = await new_topic(partitions=1)
    first = await join(cluster, name, topic)
    await first.until(lambda: first.assigned_now == partitions(topic, 1))
    second = await join(cluster, name, topic)
    await second.until(lambda: bool(second.events) and second.events[-1][0] == "assigned")
    await first.until(lambda: first.events[-1][0] == "assigned" and len(first.events) >= 3)
    assert sorted([len(first.assigned_now), len(second.assigned_now)]) == [0, 1]
    idle = first if not first.assigned_now else second
    assert not await idle.consumer.fetch(max_records=1, timeout_s=0.2)
    await first.consumer.stop()
    await second.consumer.stop()


async def test_a_commit_is_there_for_the_next_member(new_topic, producer, cluster, name):
    topic = await new_topic(partitions=2)
    zero, one = sorted(partitions(topic, 2))
    await producer.send_batch(topic, 0, [Outgoing(b"v")] * 5)
    first = await join(cluster, name, topic)
    await first.until(lambda: first.assigned_now == partitions(topic, 2))
    assert await first.consumer.committed([zero, one]) == {}
    await first.consumer.commit({zero: 3})
    assert await first.consumer.committed([zero]) == {zero: Committed(3, "")}
    await first.consumer.stop()
    second = await join(cluster, name, topic)
    await second.until(lambda: second.assigned_now == partitions(topic, 2))
    assert await second.consumer.committed([one, zero]) == {zero: Committed(3, "")}
    second.consumer.seek(zero, 3)
    assert [record.offset for record in await read(second.consumer, 2)] == [3, 4]
    await second.consumer.stop()


async def test_what_was_committed_for_many_partitions_of_two_topics_is_asked_at_once(new_topic, admin, cluster, name):
    topic, other = await new_topic(partitions=40), f"{name}-other"
    await admin.create_topic(TopicSpec(name=other, partitions=40))
    consumer = cluster.consumer(group=name)
    await consumer.start()
    assert await consumer.committed([]) == {}
    names = sorted(partitions(topic, 40) | partitions(other, 40))
    offsets = {partition: 10 * number for number, partition in enumerate(names) if number % 3}
    consumer.assign(names)
    await consumer.commit(offsets)
    found = await consumer.committed(names)
    assert {partition: one.offset for partition, one in found.items()} == offsets
    await consumer.stop()


@pytest.mark.needs("commit metadata")
async def test_a_text_committed_with_an_offset_is_there_for_the_next_member(new_topic, cluster, name):
    topic = await new_topic(partitions=3)
    zero, one, two = sorted(partitions(topic, 3))
    first = await join(cluster, name, topic)
    await first.until(lambda: first.assigned_now == partitions(topic, 3))
    text = '{"position":3,"highest":9007199254740993} \u00e4'
    await first.consumer.commit({zero: 3, one: 1}, metadata={zero: text})
    await first.consumer.stop()
    second = await join(cluster, name, topic)
    await second.until(lambda: second.assigned_now == partitions(topic, 3))
    found = await second.consumer.committed([zero, one, two])
    assert found == {zero: Committed(3, text), one: Committed(1, "")}
    await second.consumer.stop()


@pytest.mark.needs("commit metadata")
async def test_a_commit_without_a_text_takes_the_text_before_away(new_topic, cluster, name):
    topic = await new_topic()
    partition = TopicPartition(topic, 0)
    consumer = cluster.consumer(group=name)
    await consumer.start()
    consumer.assign([partition])
    await consumer.commit({partition: 7}, metadata={partition: "seven"})
    assert await consumer.committed([partition]) == {partition: Committed(7, "seven")}
    await consumer.commit({partition: 8})
    assert await consumer.committed([partition]) == {partition: Committed(8, "")}
    await consumer.stop()


async def test_a_committed_position_alone_starts_no_reading(new_topic, producer, cluster, name):
    topic = await new_topic()
    partition = TopicPartition(topic, 0)
    await producer.send_batch(topic, 0, [Outgoing(b"v")] * 5)
    first = await join(cluster, name, topic)
    await first.until(lambda: bool(first.assigned_now))
    await first.consumer.commit({partition: 2})
    await first.consumer.stop()

    class Unmoved:
        def __init__(self) -> None:
            self.assigned_once = asyncio.Event()

        async def revoked(self, partitions) -> None: ...

        async def assigned(self, partitions) -> None:
            self.assigned_once.set()

    listener = Unmoved()
    second = cluster.consumer(group=name)
    await second.start()
    await second.subscribe([topic], listener)
    async with within(20, "the second member's assignment"):
        await listener.assigned_once.wait()
    assert not await second.fetch(max_records=10, timeout_s=0.5)
    second.seek(partition, 1)
    assert [record.offset for record in await read(second, 4)] == [1, 2, 3, 4]
    await second.stop()


async def test_only_an_owner_can_commit(new_topic, cluster, name):
    topic = await new_topic(partitions=2)
    first = await join(cluster, name, topic)
    await first.until(lambda: len(first.assigned_now) == 2)
    second = await join(cluster, name, topic)
    await second.until(lambda: len(second.assigned_now) == 1)
    await first.until(lambda: len(first.assigned_now) == 1)
    [theirs] = second.assigned_now
    with pytest.raises(RebalancedError):
        await first.consumer.commit({theirs: 1})
    await first.consumer.stop()
    await second.consumer.stop()


async def test_there_is_no_lease_without_an_assignment_or_after_the_stop(new_topic, cluster, name):
    topic = await new_topic()
    consumer = cluster.consumer(group=name)
    await consumer.start()
    assert consumer.lease_left_s() == 0
    member = Member(consumer)
    await consumer.subscribe([topic], member)
    await member.until(lambda: member.assigned_now == partitions(topic, 1))
    assert consumer.lease_left_s() > 0
    await consumer.stop()
    assert consumer.lease_left_s() == 0


async def test_the_lease_of_an_idle_member_is_renewed(new_topic, cluster, name):
    topic = await new_topic(partitions=1)
    owner = await join(cluster, name, topic)
    await owner.until(lambda: bool(owner.assigned_now))
    idle = await join(cluster, name, topic)
    await idle.until(lambda: bool(idle.events) and idle.events[-1][0] == "assigned")
    await owner.until(lambda: len(owner.events) >= 3 and owner.events[-1][0] == "assigned")
    for consumer in (owner.consumer, idle.consumer):
        lowest = left = consumer.lease_left_s()
        async with within(LIMIT_S, "a heartbeat that renews the lease"):
            while left <= lowest:
                lowest = min(lowest, left)
                await asyncio.sleep(0.01)
                left = consumer.lease_left_s()
    await owner.consumer.stop()
    await idle.consumer.stop()


async def test_heartbeats_during_a_rebalance_and_commits_do_not_renew_the_lease(new_topic, cluster, name, backend):
    topic = await new_topic(partitions=2)
    revoking, go_on = asyncio.Event(), asyncio.Event()

    class Holding(Member):
        async def revoked(self, partitions) -> None:
            await super().revoked(partitions)
            revoking.set()
            await go_on.wait()

    consumer = cluster.consumer(group=name)
    await consumer.start()
    first = Holding(consumer)
    go_on.set()  # the callback before the first assignment
    await consumer.subscribe([topic], first)
    await first.until(lambda: len(first.assigned_now) == 2)
    revoking.clear(), go_on.clear()
    second = await join(cluster, name, topic)
    async with within(LIMIT_S, "the rebalance"):
        await revoking.wait()
    left = consumer.lease_left_s()
    # aiokafka goes on with heartbeats all the while, and the group takes commits of its members' last generation.
    taken = 0
    async with within(LIMIT_S, "the lease's end"):
        while consumer.lease_left_s() > 0:
            assert consumer.lease_left_s() <= left
            left = consumer.lease_left_s()
            with contextlib.suppress(RebalancedError):
                await consumer.commit({TopicPartition(topic, 0): 1})
                taken += 1
            await asyncio.sleep(0.01)
    assert taken or backend == "embedded"
    go_on.set()
    await first.until(lambda: len(first.assigned_now) == 1)
    assert consumer.lease_left_s() > 0
    await second.consumer.stop()
    await consumer.stop()


async def test_who_asks_to_rejoin_is_revoked_everything_and_assigned_anew(new_topic, cluster, name):
    topic = await new_topic(partitions=2)
    member = await join(cluster, name, topic)
    await member.until(lambda: len(member.assigned_now) == 2)
    before = len(member.events)
    member.consumer.rejoin()
    await member.until(lambda: len(member.events) == before + 2)
    assert [what for what, _ in member.events[before:]] == ["revoked", "assigned"]
    assert member.assigned_now == partitions(topic, 2)
    assert member.consumer.lease_left_s() > 0
    await member.consumer.stop()


@pytest.mark.needs("static members")
async def test_two_members_of_one_static_id_both_go_on_and_it_is_said_once(new_topic, cluster, name, caplog):
    topic = await new_topic(partitions=2)
    one = await join(cluster, name, topic, member="the-same")
    await one.until(lambda: len(one.assigned_now) == 2)
    two = await join(cluster, name, topic, member="the-same")

    def said() -> int:
        return sum(getattr(record, "event", "") == "member.static_id_given_up" for record in caplog.records)

    await until(lambda: said() and len(one.assigned_now) == len(two.assigned_now) == 1, LIMIT_S)
    calm = list(one.events), list(two.events)
    for member in (one, two):
        await member.consumer.commit(dict.fromkeys(member.assigned_now, 1))
        await member.consumer.fetch(max_records=1, timeout_s=1.5)
    assert (one.events, two.events) == calm
    assert one.assigned_now | two.assigned_now == partitions(topic, 2)
    assert said() == 1
    await one.consumer.stop()
    await two.consumer.stop()


@pytest.mark.needs("static members")
async def test_a_static_member_that_returns_causes_no_rebalance(new_topic, cluster, name):
    topic = await new_topic(partitions=2)
    one = await join(cluster, name, topic, member="slot-1")
    await one.until(lambda: len(one.assigned_now) == 2)
    two = await join(cluster, name, topic, member="slot-2")
    await two.until(lambda: len(two.assigned_now) == 1)
    await one.until(lambda: len(one.assigned_now) == 1)
    before = list(one.events)
    held = two.assigned_now
    await two.consumer.stop(leave_group=False)
    back = await join(cluster, name, topic, member="slot-2")
    await back.until(lambda: len(back.assigned_now) == 1)
    assert back.assigned_now == held
    assert one.events == before
    await one.consumer.commit(dict.fromkeys(one.assigned_now, 1))  # its generation is still the group's
    await back.consumer.stop()
    await one.consumer.stop()


@pytest.mark.long_sessions  # so it is the leaving that does it
async def test_a_static_member_that_leaves_gives_its_partitions_up_at_once(new_topic, cluster, name):
    topic = await new_topic(partitions=2)
    one = await join(cluster, name, topic, member="slot-1")
    await one.until(lambda: len(one.assigned_now) == 2)
    two = await join(cluster, name, topic, member="slot-2")
    await two.until(lambda: len(two.assigned_now) == 1)
    await two.consumer.stop()
    await one.until(lambda: len(one.assigned_now) == 2)
    await one.consumer.stop()


@pytest.mark.needs("add_partitions")
async def test_partitions_added_later_are_assigned(new_topic, admin, cluster, name):
    topic = await new_topic(partitions=1)
    member = await join(cluster, name, topic)
    await member.until(lambda: len(member.assigned_now) == 1)
    await admin.add_partitions(topic, 3)
    assert await member.consumer.partitions_of(topic) == {0, 1, 2}
    await member.consumer.stop()
    again = await join(cluster, name, topic)
    await again.until(lambda: len(again.assigned_now) == 3)
    await again.consumer.stop()


async def test_reading_a_topic_that_is_not_there_is_an_error(cluster, name):
    consumer = cluster.consumer(group=name)
    await consumer.start()
    with pytest.raises(UnknownTopicError, match=name):
        await consumer.subscribe([name], None)
    await consumer.stop()


async def test_without_a_group_there_is_nothing_to_subscribe_or_commit_to(new_topic, consumer):
    topic = await new_topic()
    partition = TopicPartition(topic, 0)
    with pytest.raises(KafkaError, match="group"):
        await consumer.subscribe([topic], None)
    consumer.assign([partition])
    with pytest.raises(KafkaError):
        await consumer.commit({partition: 1})
    with pytest.raises(KafkaError, match="group"):
        await consumer.committed([partition])


async def test_a_consumer_of_chosen_partitions_can_commit_for_an_empty_group(new_topic, cluster, name):
    topic = await new_topic()
    partition = TopicPartition(topic, 0)
    consumer = cluster.consumer(group=name)
    await consumer.start()
    consumer.assign([partition])
    await consumer.commit({partition: 7})
    assert await consumer.committed([partition]) == {partition: Committed(7, "")}
    await consumer.stop()
