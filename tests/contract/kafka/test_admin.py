from __future__ import annotations

import pytest

from headrace.kafka.aio.consumer import AioConsumer
from headrace.kafka.interface import (
    KafkaError,
    OffsetOutOfRangeError,
    Outgoing,
    TopicExistsError,
    TopicPartition,
    TopicSpec,
    connected,
)

COMPACTED = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.1", "max.compaction.lag.ms": "604800000"}


async def test_a_topic_is_described_as_it_was_created(admin, name):
    await admin.create_topic(TopicSpec(name=name, partitions=3, config={"retention.ms": "86400000"}))
    described = await admin.describe_topics([name])
    assert (described[name].name, described[name].partitions, described[name].replication) == (name, 3, 1)
    assert described[name].config["retention.ms"] == "86400000"


async def test_compaction_settings_are_kept(admin, name):
    await admin.create_topic(TopicSpec(name=name, partitions=1, config=COMPACTED))
    config = (await admin.describe_topics([name]))[name].config
    assert {key: config.get(key) for key in COMPACTED} == COMPACTED


async def test_creating_a_topic_twice_is_an_error(admin, name):
    await admin.create_topic(TopicSpec(name=name, partitions=1))
    with pytest.raises(TopicExistsError, match=name):
        await admin.create_topic(TopicSpec(name=name, partitions=1))


async def test_describing_what_is_not_there_gives_nothing_and_creates_nothing(admin, name):
    assert await admin.describe_topics([name]) == {}
    assert name not in await admin.describe_topics()


async def test_a_client_that_waits_for_a_topic_creates_none(cluster, admin, name):
    """Or it would make anew what was deleted a moment before, where brokers make the topics that they are asked for."""
    async with connected(cluster.consumer()) as consumer:
        if isinstance(consumer, AioConsumer):
            await consumer._inner._client.add_topic(name)
    assert name not in await admin.describe_topics()


async def test_all_topics_are_described_without_internal_ones(admin, name):
    await admin.create_topic(TopicSpec(name=name, partitions=2))
    described = await admin.describe_topics()
    assert described[name].partitions == 2
    assert not [topic for topic in described if topic.startswith("__")]


@pytest.mark.needs("alter_config")
async def test_one_setting_is_changed_and_the_others_stay(admin, name):
    await admin.create_topic(TopicSpec(name=name, partitions=1, config=COMPACTED))
    await admin.alter_config(name, {"min.cleanable.dirty.ratio": "0.3", "retention.ms": "1000000"})
    config = (await admin.describe_topics([name]))[name].config
    assert config["min.cleanable.dirty.ratio"] == "0.3"
    assert config["retention.ms"] == "1000000"
    assert config["cleanup.policy"] == "compact"


@pytest.mark.needs("add_partitions")
async def test_partitions_are_added_and_never_taken(admin, name):
    await admin.create_topic(TopicSpec(name=name, partitions=2))
    await admin.add_partitions(name, 5)
    assert (await admin.describe_topics([name]))[name].partitions == 5
    with pytest.raises(KafkaError):
        await admin.add_partitions(name, 3)


async def test_a_deleted_topic_is_gone(admin, name):
    await admin.create_topic(TopicSpec(name=name, partitions=2))
    await admin.delete_topic(name)
    assert await admin.describe_topics([name]) == {}


@pytest.mark.needs("group_offsets")
async def test_what_a_group_committed_is_told(admin, cluster, name):
    await admin.create_topic(TopicSpec(name=name, partitions=2))
    consumer = cluster.consumer(group=name)
    await consumer.start()
    consumer.assign([TopicPartition(name, 0), TopicPartition(name, 1)])
    await consumer.commit({TopicPartition(name, 1): 4})
    await consumer.stop()
    assert await admin.group_offsets(name) == {TopicPartition(name, 1): 4}


@pytest.mark.needs("group_offsets")
async def test_an_unknown_group_has_committed_nothing(admin, name):
    assert await admin.group_offsets(name) == {}


async def test_the_brokers_are_counted(admin):
    assert await admin.broker_count() == 1


@pytest.mark.needs("delete_records")
async def test_records_are_deleted_from_the_beginning_and_never_beyond_the_end(admin, cluster, name):
    await admin.create_topic(TopicSpec(name=name, partitions=2))
    producer, reader = cluster.producer(), cluster.consumer()
    first, other = TopicPartition(name, 0), TopicPartition(name, 1)
    await producer.start()
    await reader.start()
    try:
        for partition in (0, 1):
            await producer.send_batch(name, partition, [Outgoing(b"%d" % number) for number in range(4)])
        with pytest.raises(OffsetOutOfRangeError):
            await admin.delete_records({first: 9})
        await admin.delete_records({first: 3})
        assert await reader.beginning_offsets([first, other]) == {first: 3, other: 0}
        assert await reader.end_offsets([first, other]) == {first: 4, other: 4}
    finally:
        await reader.stop()
        await producer.stop()


async def test_without_rights_on_a_cluster_all_is_permitted_or_not_told(admin, name, backend):
    await admin.create_topic(TopicSpec(name=name, partitions=1))
    permitted = await admin.permitted([name], [name])
    told = permitted.topics[name], permitted.groups[name]
    if backend in ("apache", "docker"):
        assert {"Read", "Write", "Describe", "Alter"} <= told[0]
        assert {"Read", "Describe"} <= told[1]
    else:
        assert told == (None, None)
