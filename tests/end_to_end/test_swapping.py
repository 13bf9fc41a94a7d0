"""The real worker on real brokers while the alias that it follows moves."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from headrace.core.clock import SystemClock
from headrace.kafka.aio import AioKafkaCluster
from headrace.model.artifact import Artifact
from headrace.model.places import as_told
from headrace.registry.compacted_topics import ModelsWriter
from headrace.registry.versions import version_record
from headrace_schemas.records import ModelAlias
from tests.support.log_audit import audit
from tests.support.own_topics import OwnTopics
from tests.support.random_versions import WORDS, random_version
from tests.support.streams import answered, publish_steadily, waits


# Kafka itself is what users have; on the embedded broker the tests are slow ones.
@pytest.fixture(
    params=[pytest.param("embedded", marks=pytest.mark.slow), pytest.param("apache", marks=pytest.mark.apache)]
)
def place(request, tmp_path) -> OwnTopics:
    bootstrap = request.getfixturevalue(f"{request.param}_bootstrap")
    place = OwnTopics(bootstrap, None, tmp_path, embedded=request.param == "embedded")
    place.apply()
    return place


@asynccontextmanager
async def writing(place: OwnTopics) -> AsyncIterator[ModelsWriter]:
    producer = AioKafkaCluster(place.kafka).producer()
    await producer.start()
    try:
        yield ModelsWriter(producer, f"{place.prefix}classify.models")
    finally:
        await producer.stop()


def pointer(made: Artifact, previous: Artifact | None = None) -> ModelAlias:
    return ModelAlias(
        name="default",
        alias="champion",
        version=made.version,
        moved_at_ms=SystemClock().now_ms(),
        previous=None if previous is None else previous.version,
    )


async def test_versions_are_taken_up_and_rolled_back_under_load_and_nothing_is_lost(place, tmp_path):
    first, second = (random_version(seed, tmp_path / f"{seed}.safetensors") for seed in (1, 2))
    records = [
        version_record(made, name="default", where=as_told(str(tmp_path / f"{seed}.safetensors")), now_ms=1)
        for seed, made in ((1, first), (2, second))
    ]
    damaged = msgspec.structs.replace(records[1], version="damaged", sha256="0" * 64)
    async with place.client() as client, writing(place) as models, place.worker():
        port = (await place.logged(r"admin\.listening host=127\.0\.0\.1 port=(\d+)"))[1]
        await place.logged("model.awaited")
        assert "no version yet" in await asyncio.to_thread(readiness, port)
        await models.publish([*records, damaged, pointer(first)])
        await place.logged(f"worker.started version={first.version}")
        stop = asyncio.Event()
        stream = asyncio.create_task(publish_steadily(client, WORDS, rate=200, stop=stop))
        await answers_come(client)
        await models.publish([pointer(second, first)])
        await place.logged(f"model.swapped version={second.version}")
        await answers_come(client)
        await models.publish([pointer(first, second)])
        await place.logged(f"model.swapped version={first.version}")
        await answers_come(client)
        await models.publish([msgspec.structs.replace(pointer(first), version="damaged", previous=first.version)])
        await place.logged("error model.load_failed version=damaged .*SHA-256")
        await answers_come(client)
        stop.set()
        due = await stream
        answers = await waits(client, due)
        found = await audit(client, list(due), quiet_s=1.0)
        assert await asyncio.to_thread(readiness, port) == ""
    assert found.kept, found.line()
    assert found.by_status == {"ok": len(due)}
    versions = [answer.version for answer in answers]
    assert set(versions) == {first.version, second.version}
    assert versions[0] == versions[-1] == first.version


async def answers_come(client) -> None:
    """Wait until the answer to a request that is published now is there."""
    async with client.reader("latest") as reader:
        behind = sum(place.position for place in reader.positions.values())
    await answered(client, behind + 50)


def readiness(port: str) -> str:
    """Why the worker is not ready; empty when it is."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=30):
            return ""
    except urllib.error.HTTPError as error:
        return error.read().decode()
