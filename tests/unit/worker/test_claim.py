"""Who writes a results topic: claims of workers that start together, of older ones, and how large batches may be."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from headrace.kafka.interface import Outgoing, TopicPartition, UnknownTopicError
from headrace.registry.compacted_topics import ModelsLog, ModelsWriter, WorkersLog, WorkersWriter, copy_older_claims
from headrace.worker.partitions.resume import RefusedError
from headrace_schemas.codec import decode_workers_record, encode_result
from headrace_schemas.records import Attempt, ClassifyResult, MaxBatch, ResultsClaim, Status
from tests.support.simulation import GROUP, SETTINGS, TOPICS
from tests.support.worker_cluster import story

OLDER = ResultsClaim(results=TOPICS.results, requests=TOPICS.requests, group=GROUP, claimed_at_ms=1, starts=(0,))
"""As a worker writes it to classify.models that knows no classify.workers."""


def compact(world, topic):
    """Keep the last record of each key, as the broker does in the end."""
    name = TopicPartition(topic, 0)
    last = {record.key: record.offset for record in world.log(topic)}
    for record in list(world.log(topic)):
        if record.offset < last[record.key]:
            world.cluster.log(name).remove(record.offset)


def claims(world):
    """The claims that stand on the workers topic."""
    standing = {record.key: record.value for record in world.log(TOPICS.workers)}
    records = [decode_workers_record(value) for value in standing.values() if value is not None]
    return [record for record in records if isinstance(record, ResultsClaim)]


async def leave(world, *records):
    """What an older worker leaves on classify.models."""
    await ModelsWriter(world.producer, TOPICS.models).publish(records)


async def workers_log(world):
    models = ModelsLog(world.cluster, TOPICS.models)
    log = WorkersLog(world.cluster, TOPICS.workers, models)
    await models.start()
    await log.start()
    return log


async def refused(world, name, **settings):
    with pytest.raises(RefusedError) as refusal:
        await world.start(name, **settings)
    world.runs.pop(name)
    return str(refusal.value)


@story
async def test_a_claim_that_lost_never_holds_though_its_process_dies_and_the_topic_is_compacted(world):
    async def fault(member, name):
        if member == "loser" and name == "produce.before":
            world.start("winner")
            await world.answered(2)
            await world.stop("winner")
        elif member == "loser" and name == "produce.after":
            world.kill("loser")
            raise asyncio.CancelledError

    await world.publish("one", "two")
    world.fault = fault
    await asyncio.gather(world.start("loser", group="another", start_from="latest"), return_exceptions=True)
    world.fault = None
    assert [claim.group for claim in claims(world)] == [GROUP, "another"]
    compact(world, TOPICS.workers)
    await world.publish("three")
    world.start("next")
    await world.answered(3)
    assert [claim.group for claim in claims(world)] == [GROUP]


@story
async def test_workers_that_start_together_agree_and_leave_one_claim(world):
    await world.publish("one", "two")
    for number in range(4):
        world.start(f"w{number}")
    await world.answered(2)
    for number in range(4):
        await world.running(f"w{number}")
    assert len(claims(world)) == 1


@story
async def test_a_claim_of_an_older_version_holds_so_that_latest_skips_no_backlog(world):
    await leave(world, OLDER)
    await world.publish("backlog", "more")
    world.start(start_from="latest")
    await world.answered(2)
    assert claims(world) == [OLDER]
    # No other was made, not even for a moment.
    assert [r.key for r in world.log(TOPICS.workers) if r.key.startswith(b"claim/")] == [b"claim/results"]


@story
async def test_a_claim_of_an_older_version_keeps_another_group_out(world):
    await leave(world, msgspec.structs.replace(OLDER, group="theirs"))
    assert "group 'theirs'" in await refused(world, "w0")


@story
async def test_a_claim_that_an_older_worker_makes_at_the_same_moment_holds_for_both(world):
    async def fault(member, name):
        if member == "w0" and name == "produce.before":
            world.fault = None
            await leave(world, OLDER)

    await world.publish("backlog", "more")
    world.fault = fault
    world.start("w0", start_from="latest")
    await world.answered(2)
    assert claims(world) == [OLDER]


@story
async def test_older_claims_are_copied_once_however_often_and_attempts_stay_where_they_are(world):
    other = msgspec.structs.replace(OLDER, results="shadow", group="shadow")
    attempt = Attempt(results=TOPICS.results, partition=0, offset=0, through=3, process="still running")
    await leave(world, OLDER, other, attempt)
    writer = WorkersWriter(world.producer, TOPICS.workers)
    one, two = await workers_log(world), await workers_log(world)
    # Two at once, then once more: as two operators, or one whose first try was interrupted.
    assert sorted((await copy_older_claims(one, writer)), key=lambda claim: claim.results) == [OLDER, other]
    await copy_older_claims(two, writer)
    assert await copy_older_claims(one, writer) == []
    assert sorted(claims(world), key=lambda claim: claim.results) == [OLDER, other]
    assert all(record.key.startswith(b"claim/") for record in world.log(TOPICS.workers))


@story
async def test_a_claim_of_today_is_not_replaced_by_one_that_an_older_worker_makes_later(world):
    world.start("w0")
    await world.running()
    (ours,) = claims(world)
    await leave(world, msgspec.structs.replace(OLDER, group="theirs"))
    assert await copy_older_claims(await workers_log(world), WorkersWriter(world.producer, TOPICS.workers)) == []
    await world.stop("w0")
    world.start("w1")
    await world.running("w1")
    assert claims(world) == [ours]


@story
async def test_a_worker_without_the_workers_topic_says_what_makes_it(world):
    topics = msgspec.structs.replace(TOPICS, workers="not-there")
    with pytest.raises(UnknownTopicError, match=r"no topic not-there\. .*`headrace topics apply`"):
        await world.start(topics=topics)
    world.runs.clear()
    assert world.log(TOPICS.workers) == []


@story
async def test_a_worker_with_larger_batches_than_the_claim_allows_is_refused_until_it_is_raised(world):
    world.start("w0")
    await world.running()
    said = await refused(world, "large", max_batch=9)
    assert "at most 4 requests" in said
    assert "`headrace topics claim --max-batch 9`" in said
    await WorkersWriter(world.producer, TOPICS.workers).publish(
        [MaxBatch(results=TOPICS.results, max_batch=number, raised_at_ms=1) for number in (16, 9)]
    )
    world.start("large", max_batch=16)
    await world.publish(*map(str, range(40)))
    await world.answered(40)


@story
async def test_smaller_batches_than_the_claims_are_everybodys_right(world):
    await world.publish("one")
    world.start("w0")
    await world.answered(1)
    world.start("small", max_batch=1)
    await world.running("small")


@story
async def test_a_worker_looks_back_by_the_largest_batch_of_its_group_and_not_by_its_own(world):
    # Behind the answers to 0-39 stand those of a zombie whose one unacknowledged batch of 16 began at 8.
    appended = await world.publish(*map(str, range(40)))
    answers = [
        ClassifyResult(offset=o, after=o - 1, crc=world.crc(o), status=Status.OK, version="v1", label="a", score=1.0)
        for o in (*(one.offset for one in appended), *range(8, 24))
    ]
    await world.producer.send_batch(TOPICS.results, 0, [Outgoing(encode_result(answer)) for answer in answers])
    await WorkersWriter(world.producer, TOPICS.workers).publish([msgspec.structs.replace(OLDER, max_batch=16)])
    world.start("small", max_batch=1)
    await world.running("small")
    await world.publish("the next")
    assert [answer.offset for answer in (await world.answered(57))[56:]] == [40]


@story
async def test_a_running_worker_looks_back_by_a_batch_that_was_raised_meanwhile(world):
    world.start("w0")
    await world.running()
    raised = MaxBatch(results=TOPICS.results, max_batch=32, raised_at_ms=1)
    await WorkersWriter(world.producer, TOPICS.workers).publish([raised])
    world.workers["w0"]._assignment.restart(TopicPartition(TOPICS.requests, 0), "told to")
    await world.running()
    assert world.workers["w0"]._workers.max_batch_of(TOPICS.results) == 32


@story
async def test_a_claim_that_names_no_batch_stands_for_the_largest_that_an_older_worker_may_have(world):
    await leave(world, OLDER)
    world.start("w0", max_batch=4096)
    await world.running()
    assert world.workers["w0"]._workers.max_batch_of(TOPICS.results) == 4096


@story
async def test_a_batch_that_no_worker_can_have_is_left_out(world):
    for number in (0, -3, 10**9):
        raised = MaxBatch(results=TOPICS.results, max_batch=number, raised_at_ms=1)
        await WorkersWriter(world.producer, TOPICS.workers).publish([raised])
    await world.publish("one")
    world.start("w0")
    await world.answered(1)
    assert world.workers["w0"]._workers.max_batch_of(TOPICS.results) == SETTINGS.max_batch


@story
async def test_classify_workers_is_read_when_classify_models_has_been(world):
    done: list[str] = []
    models_start, workers_start = ModelsLog.start, WorkersLog.start

    async def slow(log: ModelsLog) -> None:
        await world.clock.sleep(1)
        await models_start(log)
        done.append("models")

    async def told(log: WorkersLog) -> None:
        done.append("workers")
        await workers_start(log)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ModelsLog, "start", slow)
        patch.setattr(WorkersLog, "start", told)
        world.start()
        await world.running()
    assert done == ["models", "workers"]
