"""The lag that Kafka's own tools show of a worker's group, on a log that transactions write."""

from __future__ import annotations

import asyncio
import itertools

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from prometheus_client import CollectorRegistry

from headrace.core.clock import SystemClock
from headrace.kafka.aio import AioKafkaCluster
from headrace.kafka.interface import TopicPartition, TopicSpec
from headrace.kafka.settings import KafkaSettings
from headrace.worker.metrics import WorkerMetrics
from headrace.worker.stages.infer import Model
from headrace.worker.worker import Worker
from headrace_schemas.codec import encode_request
from headrace_schemas.paths import RequestShape
from headrace_schemas.records import ClassifyRequest
from tests.support.models import LABELS, SumModel
from tests.support.simulation import SETTINGS, TOPICS
from tests.support.waiting import until, within

_numbers = itertools.count()


@pytest.mark.apache
async def test_the_lag_of_a_group_comes_to_nothing_behind_markers_and_aborted_requests(apache_bootstrap):
    settings = KafkaSettings(bootstrap=apache_bootstrap, heartbeat_interval_ms=200, static_members=False)
    cluster = AioKafkaCluster(settings)
    prefix = f"group-lag-{next(_numbers)}-"
    topics = type(TOPICS)(**{name: prefix + value for name, value in msgspec.structs.asdict(TOPICS).items()})
    requests = TopicPartition(topics.requests, 0)
    admin, looker = cluster.admin(), cluster.consumer(group=prefix)
    await admin.start()
    for name in msgspec.structs.astuple(topics):
        await admin.create_topic(TopicSpec(name=name, partitions=1))
    await looker.start()
    producer = AIOKafkaProducer(bootstrap_servers=apache_bootstrap, transactional_id=prefix)
    worker = Worker(
        cluster=cluster,
        topics=topics,
        settings=msgspec.structs.replace(SETTINGS, group=prefix, publish_timeout=30.0),
        shape=RequestShape(),
        model=Model("v1", LABELS, SumModel()),
        clock=SystemClock(),
        offload=asyncio.to_thread,
        metrics=WorkerMetrics(CollectorRegistry()),
        process=prefix,
    )
    stop = asyncio.Event()

    async def transaction(*texts: str, commit: bool) -> None:
        await producer.begin_transaction()
        for text in texts:
            await producer.send_and_wait(topics.requests, encode_request(ClassifyRequest(text=text)), partition=0)
        await (producer.commit_transaction() if commit else producer.abort_transaction())

    async def committed() -> int:
        found = await looker.committed([requests])
        return found[requests].offset if found else 0

    async def lag() -> int:
        return (await looker.end_offsets([requests]))[requests] - await committed()

    async def until_no_lag() -> None:
        async with within(60, "the lag to come to nothing"):
            while await lag():
                assert not running.done()
                await asyncio.sleep(0.1)

    running = asyncio.create_task(worker.run(stop))
    try:
        async with producer:
            await transaction("a", "b", commit=True)
            await until(lambda: running.done() or worker.unready is None)
            await until_no_lag()
            await transaction("aborted", commit=False)
            await until_no_lag()
            await transaction("aborted too", "and this", commit=False)
            await transaction("c", commit=True)
            await transaction("aborted at the end", commit=False)
            await until_no_lag()
        # Seven requests and five markers; three requests were committed.
        assert await committed() == 12
        results = TopicPartition(topics.results, 0)
        assert (await looker.end_offsets([results]))[results] == 3
    finally:
        stop.set()
        await running
        await looker.stop()
        await admin.stop()
