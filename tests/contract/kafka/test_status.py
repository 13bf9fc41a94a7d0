"""The status of topics and groups on every broker; and of a broker that is not there, or never answers."""

from __future__ import annotations

import asyncio
import zlib

import msgspec
import pytest

from headrace.config import Settings, TopicsSettings
from headrace.core.clock import SystemClock
from headrace.kafka.aio import AioKafkaCluster
from headrace.kafka.interface import Outgoing, TopicSpec
from headrace.kafka.settings import KafkaSettings
from headrace.process.ports import free_ports
from headrace.sight.processes import ask
from headrace.sight.status import look
from headrace_schemas.codec import encode_models_record, encode_request, encode_result
from headrace_schemas.dead_letters import dead_letter_headers
from headrace_schemas.records import ClassifyRequest, ClassifyResult, DeadLetter, ModelAlias, ModelVersion, Status
from headrace_schemas.topics import models_key
from tests.contract.kafka.helpers import join

LIMIT_S = 60.0


@pytest.fixture
def settings(name) -> Settings:
    settings = Settings(topics=TopicsSettings(prefix=f"{name}-"))
    worker = msgspec.structs.replace(settings.worker, group=f"{name}-workers")
    return msgspec.structs.replace(settings, worker=worker)


async def made(admin, settings: Settings, *, results: int = 2) -> None:
    names = settings.topics.names()
    for topic, partitions in (
        (names.requests, 2),
        (names.results, results),
        (names.dead_letters, 1),
        (names.models, 1),
        (names.workers, 1),
        (names.teaching, 1),
    ):
        await admin.create_topic(TopicSpec(name=topic, partitions=partitions))


def answer(offset: int, version: str = "v1") -> Outgoing:
    crc = zlib.crc32(b"")
    result = ClassifyResult(offset=offset, after=offset - 1, crc=crc, status=Status.OK, version=version, label="a")
    return Outgoing(encode_result(result))


def record(of: ModelVersion | ModelAlias) -> Outgoing:
    return Outgoing(encode_models_record(of), models_key(of))


def checks(status) -> set[str]:
    return {one.check for one in status.findings}


async def test_where_no_topic_is_that_is_said_and_nothing_else_of_them(cluster, settings):
    status = await look(cluster, settings, SystemClock(), limit_s=LIMIT_S)
    names = settings.topics.names()
    assert status.missing == tuple(
        sorted((names.requests, names.results, names.dead_letters, names.models, names.workers))
    )
    assert checks(status) == {"topics.missing", "workers.none"}


async def test_lag_rates_versions_and_dead_letters_are_those_of_the_logs(cluster, settings, admin, producer):
    await made(admin, settings)
    names, now_ms = settings.topics.names(), SystemClock().now_ms()
    request = encode_request(ClassifyRequest(text="a text"))
    old = [Outgoing(request, timestamp_ms=now_ms - 600_000 + n) for n in range(3)]
    await producer.send_batch(names.requests, 0, old)
    await producer.send_batch(names.requests, 1, [Outgoing(request, timestamp_ms=now_ms)])
    # The first is answered twice, as after a crash: the highest counts.
    await producer.send_batch(names.results, 0, [answer(0), answer(1), answer(0)])
    await producer.send_batch(names.results, 1, [Outgoing(b"somebody else's"), answer(0)])
    version = ModelVersion(
        name="default", version="v1", uri="file:///x", sha256="0", size=1, labels=("a",), created_at_ms=now_ms
    )
    alias = ModelAlias(name="default", alias="champion", version="v1", moved_at_ms=now_ms - 120_000)
    await producer.send_batch(names.models, 0, [record(version), record(alias)])
    place = {"topic": names.requests, "partition": 0, "offset": 0, "timestamp_ms": now_ms}
    letter = DeadLetter(stage="decode", error="bad-bytes", message="x", **place)
    await producer.send_batch(names.dead_letters, 0, [Outgoing(b"{", headers=dead_letter_headers(letter))])
    status = await look(cluster, settings, SystemClock(), limit_s=LIMIT_S)
    assert status.unknown == {}
    assert [(one.partition, one.lag) for one in status.partitions] == [(0, 1), (1, 0)]
    assert status.lag == 1
    assert 590 < status.lag_s < 700
    assert status.requests_s > 0
    assert status.answers_s > 0
    assert [(one.alias, one.version, one.recorded) for one in status.aliases] == [("champion", "v1", True)]
    assert [(one.version, one.partitions) for one in status.running] == [("v1", 2)]
    assert (status.letters.last_hour, status.letters.by_error) == (1, {"bad-bytes": 1})
    assert checks(status) == {"workers.none", "dead_letters"}


@pytest.mark.needs("group assignments")
async def test_members_are_shown_with_their_partitions(cluster, settings, admin):
    await made(admin, settings)
    member = await join(cluster, settings.worker.group, settings.topics.names().requests)
    await member.until(lambda: len(member.assigned_now) == 2)
    try:
        status = await look(cluster, settings, SystemClock(), limit_s=LIMIT_S)
        [workers] = [group for group in status.groups if group.role == "workers"]
        assert [one.partitions for one in workers.members] == [2]
        assert checks(status) == {"versions.champion"}
    finally:
        await member.consumer.stop()


async def test_partitions_that_the_results_lack_are_counted(cluster, settings, admin):
    await made(admin, settings, results=1)
    status = await look(cluster, settings, SystemClock(), limit_s=LIMIT_S)
    assert status.unanswerable == 1
    assert "topics.partitions" in checks(status)


async def test_a_broker_that_is_not_there_gives_words():
    [port] = free_ports(1)
    cluster = AioKafkaCluster(KafkaSettings(bootstrap=f"127.0.0.1:{port}"))
    status = await look(cluster, Settings(), SystemClock(), limit_s=LIMIT_S)
    assert "Nothing listens at" in status.away
    assert checks(status) == {"kafka"}


async def test_what_listens_and_never_answers_gives_words():
    async def silent(reader, writer) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        cluster = AioKafkaCluster(KafkaSettings(bootstrap=address))
        status = await look(cluster, Settings(), SystemClock(), limit_s=1.0)
        assert "did not answer within" in status.away
        process = await ask(address)
        assert (process.ready, process.why) == (False, "no answer within 3 s")
    finally:
        server.close()


async def test_a_process_is_asked_at_its_admin_port():
    async def served(reader, writer) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/readyz" in head:
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\n\r\nbreaker open\n")
        else:
            writer.write(b'HTTP/1.1 200 OK\r\n\r\n# HELP\nheadrace_model_info{version="v7"} 1.0\n')
        writer.close()

    server = await asyncio.start_server(served, "127.0.0.1", 0)
    try:
        process = await ask(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        assert (process.ready, process.why, process.version) == (False, "breaker open", "v7")
    finally:
        server.close()
    [port] = free_ports(1)
    assert (await ask(f"127.0.0.1:{port}")).why.startswith("does not answer")
