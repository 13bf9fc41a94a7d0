"""A worker whose topics are gone, as during a restore: it waits for them, and begins anew with what they hold then."""

from __future__ import annotations

import pytest
from msgspec.structs import astuple
from prometheus_client import CollectorRegistry

from headrace.kafka.interface import BrokerUnavailableError, TopicSpec, UnknownTopicError
from headrace.worker.metrics import WorkerMetrics
from headrace.worker.partitions.resume import RefusedError
from headrace.worker.stages.infer import Model
from headrace_schemas.records import Status
from tests.support.models import LABELS, SumModel, label_of
from tests.support.simulation import TOPICS
from tests.support.worker_cluster import story


# Requests and results belong together, so one of them alone is no restore.
@pytest.mark.parametrize(
    "gone",
    [(TOPICS.dead_letters,), (TOPICS.models,), (TOPICS.workers,), (TOPICS.models, TOPICS.workers), astuple(TOPICS)],
)
def test_a_worker_whose_topics_are_gone_waits_for_them_and_answers_what_they_hold_then(gone, caplog):
    @story
    async def play(world):
        caplog.set_level("INFO", "headrace")
        registry = CollectorRegistry()
        world.start(metrics=WorkerMetrics(registry))
        await world.publish("one")
        await world.answered(1)
        await delete(world, gone)
        await world.until(lambda: world.workers["w0"].unready)
        await world.clock.sleep(600)
        assert f"missing topics: {', '.join(gone)}" in world.workers["w0"].unready
        assert "`headrace topics apply`" in world.workers["w0"].unready
        assert registry.get_sample_value("headrace_partitions") == 0
        assert registry.get_sample_value("headrace_lag_records", {"partition": "0"}) is None
        assert not world.runs["w0"].done()
        for topic in gone:
            world.cluster.create_topic(TopicSpec(name=topic, partitions=1))
            await world.clock.sleep(10)  # a restore takes its time
        await world.running()
        there = len(world.log(TOPICS.results))
        await world.publish("two")
        answers = await world.answered(there + 1)
        assert (answers[-1].status, answers[-1].label) == (Status.OK, label_of("two"))
        assert registry.get_sample_value("headrace_partitions") == 1

    play()
    said = [record.event for record in caplog.records if record.levelname == "WARNING"]
    assert said.count("worker.waits") == 1
    assert 1 <= said.count("topics.missing") <= 10


@story
async def test_a_worker_that_waits_for_its_topics_stops_when_it_is_told_to(world):
    run = world.start()
    await world.running()
    await delete(world, astuple(TOPICS))
    await world.clock.sleep(60)
    assert not run.done()
    await world.stop("w0")
    assert run.exception() is None


@story
async def test_a_worker_without_a_version_waits_for_topics_that_are_gone_too(world):
    async def load(record):
        return Model(record.version, LABELS, SumModel(), ())

    run = world.start(answering=load)
    await world.until(lambda: "has no version yet" in (world.workers["w0"].unready or ""))
    await delete(world, [TOPICS.models])
    await world.clock.sleep(60)
    assert "missing topics" in world.workers["w0"].unready
    world.cluster.create_topic(TopicSpec(name=TOPICS.models, partitions=1))
    await world.publish_version("v1")
    await world.point_alias("v1")
    await world.running()
    assert not run.done()


@pytest.mark.parametrize("gone", [TOPICS.requests, TOPICS.results])
def test_rule_4_a_log_that_was_made_anew_beside_the_other_ends_a_worker_that_waited_for_it(gone):
    @story
    async def play(world):
        run = world.start()
        await world.publish("one", "two")
        await world.answered(2)
        await delete(world, [gone])
        await world.clock.sleep(60)
        assert not run.done()
        world.cluster.create_topic(TopicSpec(name=gone, partitions=1))
        await world.clock.sleep(60)
        assert run.done()
        with pytest.raises(RefusedError, match="requests"):
            run.result()
        del world.runs["w0"]

    play()


@story
async def test_a_worker_of_which_a_part_is_not_closed_ends_and_does_not_begin_anew_beside_it(world):
    run = world.start()
    await world.running()
    stop = world.workers["w0"]._producer.stop

    async def stays_open():
        await stop()
        raise BrokerUnavailableError("it may still write")

    world.workers["w0"]._producer.stop = stays_open
    await delete(world, astuple(TOPICS))
    await world.clock.sleep(60)
    with pytest.raises(UnknownTopicError):
        run.result()
    del world.runs["w0"]


async def delete(world, topics):
    admin = world.cluster.admin()
    for topic in topics:
        await admin.delete_topic(topic)
