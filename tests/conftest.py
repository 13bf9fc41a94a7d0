"""Brokers for every test: the in-memory twin, the embedded broker, real Apache Kafka, and one in Docker."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import functools
import gc
import logging
import os
from collections.abc import AsyncIterator, Iterator
from typing import TypeVar

import hypothesis
import pytest

from headrace.core.clock import SystemClock
from headrace.kafka.brokers import BrokerStartError, apache_broker, embedded_broker, java_binary
from tests.support.memory_kafka import MemoryCluster, MemoryTimings
from tests.support.sources import parsed

T = TypeVar("T")

DOCKER_IMAGE = "confluentinc/cp-kafka:7.9.1"

# Tests assert nothing about time: a busy machine is slow.
hypothesis.settings.register_profile("headrace", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("headrace")


LONG_FIRST = ("tests/end_to_end/", "tests/browser/", "tests/contract/", "tests/unit/worker/", "tests/unit/learning/")
"""Folders in the order in which they are run, before all others."""


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """All that is imported and collected stays, so no garbage is looked for in it, now or during the tests."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # or libraries tell at the end of what was not freed


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take long. Each process of `make test` takes the next file, so both end together."""
    items.sort(
        key=lambda item: next((n for n, at in enumerate(LONG_FIRST) if item.nodeid.startswith(at)), len(LONG_FIRST))
    )


def pytest_configure(config: pytest.Config) -> None:
    # A broker of a test lives for moments: what the second compiler of Java would make faster never pays for it.
    os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")
    config.addinivalue_line("markers", "needs(ability): what a contract test asks of a broker; see limits.py there")
    config.addinivalue_line("markers", "long_sessions: a contract test in which no member's session may end")


# pytest parses what it imports and what failed; so does whoever logs a traceback.
ast.parse = parsed


@pytest.fixture
async def memory_cluster() -> AsyncIterator[MemoryCluster]:
    """The twin on the machine's clock, with a group's times so short that a test need not wait."""
    timings = MemoryTimings(session_timeout_s=1.0, heartbeat_interval_s=0.02, rebalance_timeout_s=2.0)
    cluster = MemoryCluster(SystemClock(), timings=timings)
    yield cluster
    await cluster.close()


@pytest.fixture(scope="session")
def embedded_bootstrap() -> Iterator[str]:
    """The address of one embedded broker for the whole run."""
    with held(embedded_broker()) as bootstrap:
        yield bootstrap


@pytest.fixture(scope="session")
def apache_bootstrap() -> Iterator[str]:
    """The address of one node of Apache Kafka for the whole run. Skips where there is no Java 17."""
    try:
        java_binary()
    except BrokerStartError as error:
        pytest.skip(str(error))
    with held(apache_broker()) as brokers:
        yield brokers.bootstrap


@pytest.fixture(scope="session")
def docker_bootstrap() -> Iterator[str]:
    """The address of Kafka in a container. Skips where no Docker engine answers."""
    missing = docker_missing()
    if missing is not None:
        pytest.skip(missing)
    from testcontainers.community.kafka import KafkaContainer

    with KafkaContainer(DOCKER_IMAGE).with_kraft() as container:
        yield container.get_bootstrap_server()


@functools.cache
def docker_missing() -> str | None:
    """Why nothing can run in Docker here, None where an engine answers."""
    import docker

    try:
        docker.from_env(timeout=5).ping()
    except docker.errors.DockerException as error:
        return f"no Docker engine answers: {error}"
    return None


@contextlib.contextmanager
def held(broker: contextlib.AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Keep a broker over many tests, each of which has an event loop of its own."""
    with asyncio.Runner() as runner:
        started = runner.run(broker.__aenter__())
        try:
            yield started
        finally:
            runner.run(broker.__aexit__(None, None, None))


@pytest.fixture(autouse=True)
def aiokafka_speaks_again_afterwards() -> Iterator[None]:
    """A command quiets aiokafka's log for its process, and that of the tests goes on."""
    logger = logging.getLogger("aiokafka")
    before = logger.level
    yield
    logger.setLevel(before)
