"""The real worker on real Apache Kafka: input that nobody should send, a model that breaks, fetches that vanish."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from headrace.client import Client, prepare
from headrace.client.dead_letters import Found, read_dead_letters
from headrace.core.clock import SystemClock
from headrace.kafka.aio import AioKafkaCluster
from headrace.kafka.interface import Outgoing, TopicPartition
from headrace.kafka.range_reader import read_ranges
from headrace.model.artifact import Artifact
from headrace.model.places import as_told
from headrace.process.children import child
from headrace.registry.compacted_topics import ModelsWriter
from headrace.registry.versions import version_record
from headrace_load.processes import slowness
from headrace_load.workload.texts import rubbish
from headrace_schemas.codec import decode_result
from headrace_schemas.dead_letters import NOTHING
from headrace_schemas.headers import CONTENT_TYPE, JSON, TENANT
from headrace_schemas.records import ClassifyResult, ModelAlias, Status
from headrace_schemas.topics import MAX_REQUEST_BYTES
from load.chaos import broken
from load.chaos.broken import HELD_S
from load.chaos.cluster import FETCH, Passing, Way, cluster
from tests.support.log_audit import audit
from tests.support.own_topics import LIMIT_S, OwnTopics
from tests.support.random_versions import random_version, text
from tests.support.raw_batches import GZIP, LZ4, SNAPPY, ZSTD, raw_batch, raw_record, send_raw
from tests.support.streams import answered
from tests.support.waiting import until, within

pytestmark = pytest.mark.apache


@pytest.fixture
def place(apache_bootstrap, tmp_path) -> OwnTopics:
    random_version(3, tmp_path / "model.safetensors")
    place = OwnTopics(apache_bootstrap, tmp_path / "model.safetensors", tmp_path, embedded=False)
    place.apply()
    return place


async def outcomes(client: Client, count: int) -> dict[tuple[int, int], tuple[Status, str | None]]:
    """Status and reason by the request's place, once ``count`` are answered."""
    await answered(client, count)
    found = {}
    async with client.reader("beginning") as reader, within(LIMIT_S, f"the reading of {count} answers"):
        while len(found) < count:
            for answer in await reader.read():
                assert answer.hole is None
                found[answer.partition, answer.result.offset] = (answer.result.status, answer.result.reason)
    return found


async def letters(place: OwnTopics) -> list[Found]:
    topic = f"{place.prefix}classify.dead-letters"
    return [found async for found in read_dead_letters(AioKafkaCluster(place.kafka), topic)]


async def headrace(place: OwnTopics, *arguments: str) -> str:
    """What a command of ours prints."""
    command = (sys.executable, "-m", "headrace", *place.at, *arguments)
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=LIMIT_S * slowness()
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


KINDS = {
    "not-json": "bad-bytes",
    "no-text": "missing-text",
    "bad-utf8": "bad-bytes",
    "bad-header": "bad-header",
    "null": "missing-text",
    "too-large": "text-too-large",
}


async def test_a_flood_of_rubbish_fails_with_its_reasons_and_every_good_request_in_it_is_answered(place):
    kinds = [*(itertools.chain.from_iterable([list(KINDS)[:5]] * 20)), "too-large"]
    bad = [kinds[number % len(kinds)] for number in range(2_000)]
    mixed = []
    for number, kind in enumerate(bad):
        value, headers = rubbish(kind, text(number))
        mixed += [text(number), Outgoing(value, headers=headers)]
    async with place.client() as client, place.worker():
        published = await client.publish_many(mixed)
        found = await outcomes(client, len(mixed))
    expected = [one for kind in bad for one in ((Status.OK, None), (Status.FAILED, KINDS[kind]))]
    assert [found[request.partition, request.offset] for request in published] == expected
    told = {(one.letter.partition, one.letter.offset): one.letter.error for one in await letters(place)}
    failed = {
        (request.partition, request.offset): KINDS[kind] for request, kind in zip(published[1::2], bad, strict=True)
    }
    assert told == failed


async def test_records_that_no_client_writes_fail_alone_or_are_answered(place):
    good, big = b'{"text":"good film"}', 3 * MAX_REQUEST_BYTES
    odd = [
        (raw_record(0, good, headers=((b"\xff\xfe", b"v"), (b"", None))), None),
        (raw_record(0, good, headers=[(b"h%d" % number, b"v" * 90) for number in range(1000)]), None),
        (raw_record(0, good, headers=[(TENANT.encode(), b"t" * 500)] * 1000), None),
        (raw_record(0, good, headers=[(b"timeout-ms", None)] * 1000), "bad-header"),
        (raw_record(0, good, headers=[(CONTENT_TYPE.encode(), b"\xff")]), "unknown-content-type"),
        (raw_record(0, b'{"text":"' + b"x" * big + b'"}'), "request-too-large"),
        (raw_record(0, good, key=b"k" * big), "request-too-large"),
        (raw_record(0, good, headers=[(TENANT.encode(), b"t" * big)]), "request-too-large"),
        (raw_record(0, b"\0" * (MAX_REQUEST_BYTES + 1)), "request-too-large"),
        (raw_record(0, b'{"text":"x","a":' + b"[" * 900_000), "bad-bytes"),
    ]
    topic = f"{place.prefix}classify.requests"
    async with place.client() as client:
        places = []
        for record, reason in odd:
            await client.publish_many([text(1), text(2)])
            offset = await send_raw(place.kafka.bootstrap, topic, 0, raw_batch([record], codec=GZIP), 1)
            places.append((offset, reason))
        async with place.worker():
            found = await outcomes(client, 3 * len(odd))
    for offset, reason in places:
        assert found.pop((0, offset)) == ((Status.OK, None) if reason is None else (Status.FAILED, reason))
    assert set(found.values()) == {(Status.OK, None)}
    assert sorted(one.letter.error for one in await letters(place)) == sorted(filter(None, (r for _, r in odd)))


# How large two bombs are that fit, packed, into a batch of the topic; snappy packs less than 22 to 1.
BOMBS = {GZIP: 150_000_000, ZSTD: 150_000_000, LZ4: 100_000_000, SNAPPY: 9_000_000}


async def test_a_bomb_in_any_compression_is_answered_failed_with_key_and_crc_and_takes_little_memory(place):
    topic, good = f"{place.prefix}classify.requests", b'{"text":"good film"}'
    expected: dict[int, tuple[Status, bytes | None, int]] = {}
    place.command = ("--set", "kafka.max_record_bytes=4194304", *place.command)
    async with place.client() as client:
        async with place.worker() as worker:
            await client.publish_many([text(1)], partition=0)
            await answered(client, 1)
            before = peak_bytes(worker.pid)
            for codec, size in BOMBS.items():
                values = (good, b"\0" * size, good, b"\0" * size)
                made = [raw_record(at, value, key=b"key-%d" % at) for at, value in enumerate(values)]
                batch = raw_batch(made, codec=codec)
                first = await send_raw(place.kafka.bootstrap, topic, 0, batch, len(made))
                for at, value in enumerate(values):
                    status = Status.OK if value is good else Status.FAILED
                    expected[first + at] = (status, b"key-%d" % at, zlib.crc32(value))
            await answered(client, 1 + len(expected))
            assert peak_bytes(worker.pid) - before < 150_000_000
        # The last answer is that of a bomb, whose crc is compared when a worker resumes.
        async with place.worker():
            await client.publish_many([text(2)], partition=0)
            await answered(client, 2 + len(expected))
    found = {}
    for key, result in await results(place):
        if result.offset in expected:
            found[result.offset] = (result.status, key, result.crc)
    assert found == expected
    told = await letters(place)
    assert [one.letter.error for one in told] == ["request-too-large"] * 2 * len(BOMBS)
    assert {(one.kept, one.letter.value, one.letter.key) for one in told} == {
        (NOTHING, None, b"key-1"), (NOTHING, None, b"key-3"),
    }  # fmt: skip


def peak_bytes(pid: int) -> int:
    """The most memory that the process has had."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[1]) * 1024


async def results(place: OwnTopics) -> list[tuple[bytes | None, ClassifyResult]]:
    """Key and value of every answer in partition 0."""
    consumer = AioKafkaCluster(place.kafka).consumer()
    await consumer.start()
    try:
        name = TopicPartition(f"{place.prefix}classify.results", 0)
        begins, ends = await consumer.beginning_offsets([name]), await consumer.end_offsets([name])
        return [
            (record.key, decode_result(record.value, JSON))
            async for records in read_ranges(consumer, begins, ends)
            for record in records
        ]
    finally:
        await consumer.stop()


async def test_a_hopeless_dead_letter_is_tried_three_times_and_a_mended_one_is_answered(place):
    large = json.dumps({"text": "good " * 20_000}).encode()
    async with place.client() as client:
        async with place.worker():
            await client.publish_many([prepare(b"{"), prepare(large)])
            await answered(client, 2)
        listed = [json.loads(line) for line in (await headrace(place, "dead-letters", "list", "--json")).splitlines()]
        assert {(one["error"], one["attempt"]) for one in listed} == {("bad-bytes", 1), ("text-too-large", 1)}
        hopeless = next(one["place"] for one in listed if one["error"] == "bad-bytes")
        shown = json.loads(await headrace(place, "dead-letters", "show", hopeless))
        assert (shown["error"], shown["stage"]) == ("bad-bytes", "decode")
        # Its cause is mended: longer texts are allowed now.
        command = (sys.executable, "-m", "headrace", "--set", "requests.max_text_bytes=200000", *place.command)
        async with child(command, log=place.log):
            # Between two runs the worker has answered, and dead-lettered again what is still bad.
            told = []
            for answers in (4, 5, 5):
                told.append((await headrace(place, "dead-letters", "replay", "--all")).splitlines()[0])
                found = await outcomes(client, answers)
    assert [re.findall(r"\d+", line) for line in told] == [
        ["2", "0", "3", "0", "0"],
        ["1", "0", "3", "2", "0"],
        ["0", "1", "3", "3", "0"],
    ]
    assert sorted(found.values(), key=str) == [
        (Status.FAILED, "bad-bytes"),
        (Status.FAILED, "bad-bytes"),
        (Status.FAILED, "bad-bytes"),
        (Status.FAILED, "text-too-large"),
        (Status.OK, None),
    ]
    assert sorted((one.letter.error, one.letter.attempt) for one in await letters(place)) == [
        ("bad-bytes", 1),
        ("bad-bytes", 2),
        ("bad-bytes", 3),
        ("text-too-large", 1),
    ]


async def test_a_version_that_breaks_stops_its_worker_and_a_rollback_lets_it_go_on(apache_bootstrap, tmp_path):
    place = OwnTopics(apache_bootstrap, None, tmp_path, embedded=False)
    place.apply()
    first, second = (random_version(seed, tmp_path / f"{seed}.safetensors") for seed in (1, 2))
    broken = tmp_path / "broken"
    program = (sys.executable, "-m", "tests.support.breaking_worker", second.version, str(broken))
    async with place.client() as client, writing(place) as models, child((*program, *place.command), log=place.log):
        port = (await place.logged(r"admin\.listening host=127\.0\.0\.1 port=(\d+)"))[1]
        records = [
            version_record(made, name="default", where=as_told(str(tmp_path / f"{seed}.safetensors")), now_ms=1)
            for seed, made in ((1, first), (2, second))
        ]
        await models.publish([*records, pointer(second, first)])
        await place.logged(f"worker.started version={second.version}")
        published = await client.publish_many(text(number) for number in range(100))
        await answered(client, 100)
        broken.touch()
        published += await client.publish_many(text(number) for number in range(100, 3_000))
        await place.logged("error breaker.open")
        assert "the breaker is open" in await asyncio.to_thread(readiness, port)
        async with client.reader("latest") as reader:
            assert sum(place.position for place in reader.positions.values()) == 100
        assert await letters(place) == []
        await models.publish([pointer(first, second)])
        await answered(client, 3_000)
        assert await asyncio.to_thread(readiness, port) == ""
        assert await letters(place) == []
        found = await audit(client, published, quiet_s=1.0)
    assert found.kept, found.line()
    assert found.by_status == {"ok": 3_000}


@pytest.mark.slow
async def test_a_worker_whose_fetches_are_never_answered_ends_itself_and_is_started_again_ever_later(tmp_path):
    random_version(3, tmp_path / "model.safetensors")
    (tmp_path / "kafka").mkdir()
    async with cluster(1, tmp_path / "kafka") as brokers:
        place = OwnTopics(brokers.bootstrap, tmp_path / "model.safetensors", tmp_path, embedded=False)
        place.apply()
        behind = (brokers.behind if part == brokers.bootstrap else part for part in place.command)
        command = (sys.executable, "-m", "headrace", "--set", "worker.watchdog=2", *behind, "--processes", "2")
        async with place.client() as client, child(command, log=place.log):
            await until(lambda: len(re.findall("partition.resumed", place.log.read_text())) >= 4, LIMIT_S)
            await client.classify(text(1), timeout=LIMIT_S)
            # Meanwhile the members stand still, so that much waits when they fetch again. One by one, so that each is
            # a batch: of such the watchdog's own fetch takes one of each partition.
            members = [int(pid) for pid in re.findall(r"member\.started slot=\d pid=(\d+)", place.log.read_text())]
            for pid in members:
                os.kill(pid, signal.SIGSTOP)
            published = [await client.publish(text(number)) for number in range(400)]
            brokers.proxies[0].hook = swallow_records
            for pid in members:
                os.kill(pid, signal.SIGCONT)
            ended = await until(lambda: restarts(place.log, 2), 3 * LIMIT_S)
            brokers.proxies[0].hook = None
            await answered(client, 401)
            found = await audit(client, published, quiet_s=1.0)
    assert found.kept, found.line()
    for waits in ended.values():
        assert waits == sorted(waits)
        assert len(set(waits)) == len(waits)
    assert re.search(
        r"classify\.requests\[\d\] has stood at \d+ for [2-9] s although it ends at", place.log.read_text()
    )


async def test_a_worker_whose_event_loop_is_held_ends_and_says_where_it_stood(place):
    command = (*broken.command("held_loop"), "--set", "worker.watchdog=3", *place.command)
    async with place.client() as client, child(command, log=place.log) as worker:
        await client.classify(text(1), timeout=LIMIT_S)
        worker.process.send_signal(signal.SIGUSR1)
        async with within(HELD_S, "the end of a worker whose loop is held"):
            assert await worker.process.wait() == 1
    log = place.log.read_text()
    assert "Timeout (0:00:03)!" in log
    assert "broken.py" in log


async def swallow_records(passing: Passing) -> bool:
    """Forward all but replies to fetches that hold more than a batch of each partition."""
    return passing.way is Way.TO_BROKER or passing.request.api != FETCH or passing.size < 5000


def restarts(log: Path, at_least: int) -> dict[str, list[float]] | None:
    """The waits before each restart by slot, once one slot has so many."""
    found: dict[str, list[float]] = {}
    for slot, wait in re.findall(r"member\.ended slot=(\d) code=1 restart_in_s=([\d.]+)", log.read_text()):
        found.setdefault(slot, []).append(float(wait))
    return found if any(len(waits) >= at_least for waits in found.values()) else None


@asynccontextmanager
async def writing(place: OwnTopics) -> AsyncIterator[ModelsWriter]:
    producer = AioKafkaCluster(place.kafka).producer()
    await producer.start()
    try:
        yield ModelsWriter(producer, f"{place.prefix}classify.models")
    finally:
        await producer.stop()


def pointer(made: Artifact, previous: Artifact) -> ModelAlias:
    return ModelAlias(
        name="default",
        alias="champion",
        version=made.version,
        moved_at_ms=SystemClock().now_ms(),
        previous=previous.version,
    )


def readiness(port: str) -> str:
    """Why the worker is not ready; empty when it is."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=30):
            return ""
    except urllib.error.HTTPError as error:
        return error.read().decode()
