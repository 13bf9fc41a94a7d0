"""Rubbish that is slow must not make good requests late that are not."""

from __future__ import annotations

from headrace_schemas.headers import TIMEOUT_MS
from headrace_schemas.records import Status
from tests.support.worker_cluster import story


@story
async def test_large_rubbish_does_not_make_good_requests_expire_that_are_in_time(world):
    async def offload(work):
        await world.clock.sleep(0.02)
        return work()

    world.start(offload=offload, max_batch=1024, waiting_per_partition=4096)
    await world.running()
    for count in range(60):
        await world.publish_value(b'{"text":"' + b"x" * 1_000_000 + b'"}')
        await world.answered(count + 1)
    await world.publish("in time", headers=((TIMEOUT_MS, b"2000"),))
    answers = await world.answered(61)
    assert answers[-1].status is Status.OK
    assert {answer.reason for answer in answers[:-1]} == {"text-too-large"}
