"""The real programs on real brokers: a worker that is killed, drained, fed rubbish, and a broker that goes away."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from headrace.client import Client, prepare
from headrace.kafka.brokers import apache_broker
from headrace_load.processes import running
from headrace_schemas.headers import CONTENT_TYPE
from headrace_schemas.records import Status
from tests.support.log_audit import audit
from tests.support.own_topics import LIMIT_S, OwnTopics
from tests.support.random_versions import text
from tests.support.streams import answered
from tests.support.waiting import until, within


async def statuses(client: Client, count: int) -> dict[tuple[int, int], Status]:
    """The status of every request by its place, once ``count`` are answered."""
    await answered(client, count)
    found = {}
    async with client.reader("beginning") as reader, within(LIMIT_S, f"the reading of {count} answers"):
        while len(found) < count:
            for answer in await reader.read():
                assert answer.hole is None
                found[answer.partition, answer.result.offset] = answer.result.status
    return found


async def test_a_killed_worker_loses_and_repeats_nothing(place):
    async with place.client() as client:
        published = await client.publish_many(text(number) for number in range(20_000))
        async with place.worker() as worker:
            await answered(client, 5_000)
            await worker.kill()
        async with place.worker():
            await answered(client, 20_000)
        found = await audit(client, published)
    assert found.kept, found.line()
    assert found.by_status == {"ok": 20_000}


async def test_a_stopped_worker_drains_leaves_and_ends_with_zero(place):
    async with place.client() as client:
        published = await client.publish_many(text(number) for number in range(20_000))
        async with place.worker() as worker:
            await answered(client, 2_000)
            await worker.stop()
            assert worker.process.returncode == 0
        await place.logged("worker.stopped")
        async with place.worker():
            await answered(client, 20_000)
        found = await audit(client, published)
    assert found.kept, found.line()
    assert found.dropped == 0


async def test_rubbish_fails_alone_and_good_requests_beside_it_are_answered(place):
    rubbish = [
        prepare(b"\xff\xfe"),
        prepare(b"{}"),
        prepare(b'{"text": 1}'),
        prepare(json.dumps({"text": "x" * 100_000}).encode()),
        prepare(b"text", headers=((CONTENT_TYPE, b"image/png"),)),
        prepare(b'{"text": "x"}', headers=(("timeout-ms", b"-5"),)),
    ]
    async with place.client() as client, place.worker():
        mixed = await client.publish_many(
            record for number in range(200) for record in (text(number), rubbish[number % len(rubbish)])
        )
        found = await statuses(client, len(mixed))
    expected = [Status.OK if number % 2 == 0 else Status.FAILED for number in range(len(mixed))]
    assert [found[request.partition, request.offset] for request in mixed] == expected


async def test_a_killed_member_is_started_again_and_everything_is_answered(place):
    async with place.client() as client, place.worker("--processes", "2"):
        first = int((await place.logged(r"member\.started slot=0 pid=(\d+)"))[1])
        await place.logged("partition.resumed")
        published = await client.publish_many(text(number) for number in range(10_000))
        os.kill(first, signal.SIGKILL)
        await place.logged(r"member\.ended .*slot=0")
        await answered(client, 10_000)
        found = await audit(client, published)
    assert found.kept, found.line()


async def test_two_workers_started_by_hand_on_one_machine_share_the_partitions(place):
    second = place.log.with_name("second.log")
    async with place.client() as client, place.worker(), running(*place.command, log=second):
        await until(lambda: re.search(r"partition\.resumed", second.read_text()), LIMIT_S)
        published = await client.publish_many(text(number) for number in range(5_000))
        await answered(client, 5_000)
        found = await audit(client, published)
        # While both run: the one that stops first leaves its share to the other.
        logs = [place.log.read_text(), second.read_text()]
    assert found.kept, found.line()
    for log in logs:
        assigned = re.findall(r"partitions\.assigned partitions=\[(.*)\]", log)
        assert len(assigned[-1].split(",")) == 2, log


async def test_one_awaits_the_answer_to_ones_own_text(place):
    async with place.client() as client, place.worker():
        results = await asyncio.gather(*(client.classify(text(n), id=f"id-{n}", timeout=LIMIT_S) for n in range(50)))
    assert [result.id for result in results] == [f"id-{n}" for n in range(50)]
    assert {result.status for result in results} == {Status.OK}


async def test_the_admin_port_tells_health_readiness_and_metrics(place):
    async with place.client() as client, place.worker() as worker:
        port = (await place.logged(r"admin\.listening host=127\.0\.0\.1 port=(\d+)"))[1]
        await client.classify(text(1), timeout=LIMIT_S)

        def get(path: str) -> tuple[int, str]:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=LIMIT_S) as reply:
                    return reply.status, reply.read().decode()
            except urllib.error.HTTPError as error:
                return error.code, error.read().decode()

        assert (await asyncio.to_thread(get, "/healthz"))[0] == 200
        assert (await asyncio.to_thread(get, "/readyz"))[0] == 200
        _, metrics = await asyncio.to_thread(get, "/metrics")
        maps = await asyncio.to_thread(Path(f"/proc/{worker.process.pid}/maps").read_text)
    assert 'headrace_answers_total{status="ok"} 1.0' in metrics
    for stage in ("fetch", "batch", "decode", "infer", "encode", "publish"):
        assert f'headrace_stage_seconds_count{{stage="{stage}"}}' in metrics
    assert "numpy" in maps
    assert "torch" not in maps, "a worker on the cpu backend must not load torch"


async def test_a_second_group_on_the_same_results_topic_is_refused(place):
    async with place.client() as client, place.worker():
        await client.classify(text(1), timeout=LIMIT_S)
        async with place.worker("--group", "another") as other, within(LIMIT_S, "the refusal of another group"):
            assert await other.process.wait() == 3
    await place.logged("headrace: .*results topic of its own")


@pytest.mark.apache
async def test_a_broker_that_is_killed_and_comes_back_costs_nothing(model, tmp_path):
    async with apache_broker(log_dir=tmp_path / "kafka") as brokers:
        place = OwnTopics(brokers.bootstrap, model, tmp_path, embedded=False)
        place.apply()
        async with place.client() as client:
            published = await client.publish_many(text(number) for number in range(30_000))
            async with place.worker():
                await answered(client, 3_000)
                brokers.kill(0)
                await brokers.start(0)
                await answered(client, 30_000)
            found = await audit(client, published)
    assert found.kept, found.line()
