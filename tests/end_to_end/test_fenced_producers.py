"""Producers that Apache Kafka fences: the worker's and the client's are replaced, and calls succeed again."""

from __future__ import annotations

import asyncio
import logging

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.producer.transaction_manager import PidAndEpoch
from prometheus_client import CollectorRegistry

from headrace.client import connect
from headrace.core.clock import SystemClock
from headrace.kafka.aio.producer import AioProducer
from headrace.kafka.interface import ProducerDeadError, TopicSpec
from headrace.kafka.settings import KafkaSettings
from headrace.worker.metrics import WorkerMetrics
from headrace.worker.settings import WorkerSettings
from headrace.worker.stages.infer import Model
from headrace.worker.worker import Worker, WorkerTopics
from headrace_schemas.paths import RequestShape
from headrace_schemas.records import Status
from tests.support.answered_site import PARTITIONS, Site
from tests.support.models import LABELS, SumModel
from tests.support.turned_tests import after_a_moment
from tests.support.waiting import until

LIMIT_S = 60.0


async def fence(producer: AioProducer, bootstrap: str, topic: str) -> None:
    """Write to each partition with the producer's own id and its next epoch: the broker refuses the old epoch then."""
    manager = producer._connection.inner._txn_manager
    fencer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True)
    await fencer.start()
    fencer._txn_manager._pid_and_epoch = PidAndEpoch(manager.producer_id, manager.producer_epoch + 1)
    for partition in range(PARTITIONS):
        await fencer.send_and_wait(topic, b"", partition=partition)
    await fencer.stop()


@pytest.mark.apache
async def test_a_fenced_producer_of_the_client_fails_one_call_and_is_replaced_for_the_next(apache_bootstrap):
    site = Site(apache_bootstrap, idempotent=True)
    await site.create_topics()
    answering = asyncio.create_task(site.answer())
    kafka = KafkaSettings(bootstrap=apache_bootstrap)
    async with connect(kafka=kafka, requests=site.requests, results=site.results) as client:
        await client.classify("one", timeout=LIMIT_S)
        fenced = client._publisher._producer
        await fence(fenced, apache_bootstrap, site.requests)
        with pytest.raises(ProducerDeadError):
            await client.publish("two")
        assert fenced.dead
        outcomes = await asyncio.gather(*(client.classify(f"text {number}", timeout=LIMIT_S) for number in range(50)))
        assert {outcome.status for outcome in outcomes} == {Status.OK}
        assert client._publisher._producer is not fenced
    answering.cancel()


@pytest.mark.apache
async def test_a_fenced_producer_of_the_worker_is_replaced_and_every_request_is_answered(apache_bootstrap, caplog):
    caplog.set_level(logging.INFO, "headrace")
    site = Site(apache_bootstrap, idempotent=True)
    await site.create_topics()
    topics = WorkerTopics(
        site.requests, site.results, site.dead_letters, f"{site.prefix}models", f"{site.prefix}workers"
    )
    admin = site.cluster.admin()
    await admin.start()
    for name in (topics.models, topics.workers):
        await admin.create_topic(TopicSpec(name=name, partitions=1))
    await admin.stop()
    worker = Worker(
        cluster=site.cluster,
        topics=topics,
        settings=WorkerSettings(group=f"{site.prefix}workers"),
        shape=RequestShape(),
        model=Model("v1", LABELS, SumModel(), ()),
        clock=SystemClock(),
        offload=after_a_moment,
        metrics=WorkerMetrics(CollectorRegistry()),
        process="fenced",
    )
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    kafka = KafkaSettings(bootstrap=apache_bootstrap)
    async with connect(kafka=kafka, requests=site.requests, results=site.results) as client:
        await client.classify("one", timeout=LIMIT_S)
        await until(lambda: worker.unready is None, LIMIT_S)
        fenced = worker._producer._producer
        # The dead letters: a foreign record among the answers would be an error of its own.
        await fence(fenced, apache_bootstrap, site.dead_letters)
        await client.publish(b"{")
        outcomes = await asyncio.gather(*(client.classify(f"text {number}", timeout=LIMIT_S) for number in range(50)))
        assert {outcome.status for outcome in outcomes} == {Status.OK}
        await until(lambda: worker._producer._producer not in (None, fenced), LIMIT_S)
    stop.set()
    await running
    assert [record.event for record in caplog.records].count("producer.replaced") == 1
    assert not running.exception()
