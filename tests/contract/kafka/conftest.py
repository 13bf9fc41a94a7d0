"""One suite, four backends: the twin, the embedded broker, Apache Kafka and, where an engine answers, Docker."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest

from headrace.kafka.aio import AioKafkaCluster
from headrace.kafka.brokers import embedded_settings
from headrace.kafka.interface import Cluster, TopicSpec
from headrace.kafka.settings import KafkaSettings
from tests.conftest import docker_missing
from tests.contract.kafka.helpers import end_members
from tests.contract.kafka.limits import EMBEDDED_LIMITS, SEEN_BY_WAITING, STATIC_MEMBERS
from tests.support.memory_kafka import MemoryCluster

BACKENDS = [
    "memory",
    "embedded",
    pytest.param("apache", marks=pytest.mark.apache),
    # Where no engine answers one test is skipped and says so, not every one: see test_clients.py.
    *([pytest.param("docker", marks=pytest.mark.docker)] if docker_missing() is None else []),
]

LONG_S = 600
"""A session that ends in no test."""

_numbers = itertools.count(1)


@pytest.hookimpl(tryfirst=True)  # before -m takes its choice
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        callspec = getattr(item, "callspec", None)
        needed = {mark.args[0] for mark in item.iter_markers("needs")}
        if callspec is not None and callspec.params.get("backend") == "embedded" and needed & SEEN_BY_WAITING:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """The backend's name; a test that needs what the embedded broker lacks is marked as failing there."""
    name: str = request.param
    if name == "embedded":
        for mark in request.node.iter_markers("needs"):
            reason = EMBEDDED_LIMITS.get(mark.args[0])
            if reason is not None:
                request.applymarker(pytest.mark.xfail(reason=f"embedded broker: {reason}", strict=True))
    return name


@pytest.fixture
def cluster(backend: str, request: pytest.FixtureRequest) -> Cluster:
    long = request.node.get_closest_marker("long_sessions") is not None
    if backend == "memory":
        cluster: MemoryCluster = request.getfixturevalue("memory_cluster")
        if long:
            cluster.timings = msgspec.structs.replace(cluster.timings, session_timeout_s=LONG_S)
        return cluster
    bootstrap = request.getfixturevalue(f"{backend}_bootstrap")
    if backend == "embedded":
        needed = {mark.args[0] for mark in request.node.iter_markers("needs")}
        settings = msgspec.structs.replace(
            embedded_settings(bootstrap),
            # Left out for that broker, except where a test is there to show that it still can't.
            idempotent="idempotent producer" in needed,
            static_members=STATIC_MEMBERS in needed,
            session_timeout_ms=1_200,  # it waits half a session at every rebalance
        )
        return AioKafkaCluster(settings)
    settings = KafkaSettings(bootstrap=bootstrap, heartbeat_interval_ms=200)
    return AioKafkaCluster(msgspec.structs.replace(settings, session_timeout_ms=1000 * LONG_S) if long else settings)


@pytest.fixture
async def name() -> AsyncIterator[str]:
    """A name that no other test of this run uses, for a topic or a group; members that joined it are stopped."""
    yield f"contract-{next(_numbers)}"
    await end_members()


@pytest.fixture
async def admin(cluster: Cluster) -> AsyncIterator[object]:
    admin = cluster.admin()
    await admin.start()
    yield admin
    await admin.stop()


@pytest.fixture
async def producer(cluster: Cluster) -> AsyncIterator[object]:
    producer = cluster.producer()
    await producer.start()
    yield producer
    await producer.stop()


@pytest.fixture
def in_columns() -> bool:
    """Whether the consumer may hand over columns."""
    return False


@pytest.fixture
async def consumer(cluster: Cluster, in_columns: bool) -> AsyncIterator[object]:
    """A consumer of no group, for tests that choose their partitions."""
    consumer = cluster.consumer(in_columns=in_columns)
    await consumer.start()
    yield consumer
    await consumer.stop()


@pytest.fixture
def new_topic(admin, name: str) -> Callable[..., object]:
    """Create a topic of this test; returns its name."""

    async def create(partitions: int = 1, **config: str) -> str:
        await admin.create_topic(
            TopicSpec(
                name=name, partitions=partitions, config={key.replace("_", "."): value for key, value in config.items()}
            )
        )
        return name

    return create
