"""The worker's rules of the answer log, a story each."""

from __future__ import annotations

import asyncio
import zlib

import pytest

from headrace.core.answer_log import PartitionReader
from headrace.inference.resume import RefusedError
from headrace.inference.service import WorkerTopics
from headrace.kafka.errors import BrokerUnavailableError
from headrace.kafka.interface import TopicPartition, TopicSpec
from headrace_schemas.records import Loss, Status
from tests.support.models import SumModel, label_of
from tests.support.simulation import GROUP, TOPICS
from tests.support.world import story

REQUESTS = TopicPartition(TOPICS.requests, 0)
RESULTS = TopicPartition(TOPICS.results, 0)


def texts(count, first=0):
    return [f"text {number}" for number in range(first, first + count)]


@story
async def test_answers_stand_in_the_requests_partition_in_order_with_offset_after_and_crc(world):
    await world.publish(*texts(10))
    world.start()
    answers = await world.answered(10)
    values = [record.value for record in world.log(TOPICS.requests)]
    assert [answer.offset for answer in answers] == list(range(10))
    assert [answer.after for answer in answers] == list(range(-1, 9))
    assert [answer.crc for answer in answers] == [zlib.crc32(value) for value in values]
    assert [answer.label for answer in answers] == [label_of(text) for text in texts(10)]


@story
async def test_rule_1_a_new_owner_resumes_behind_the_last_answer_whatever_the_commit_says(world):
    await world.publish(*texts(10))
    world.start()
    await world.answered(10)
    world.kill("w0")
    world.cluster.group(GROUP).offsets[REQUESTS] = 3
    await world.publish(*texts(5, first=10))
    world.start("w1")
    await world.answered(15)
    assert [answer.offset for answer in world.answers()] == list(range(15))


@story
async def test_rule_1_answers_gone_by_retention_the_commit_serves(world):
    await world.publish(*texts(10))
    world.start()
    await world.answered(10)
    await world.stop("w0")
    world.cluster.truncate(RESULTS, 10)
    await world.publish("one more")
    world.start("w1")
    answers = await world.answered(1)
    assert [(answer.offset, answer.after) for answer in answers] == [(10, 9)]


@story
async def test_rule_1_commits_without_results_stop_the_worker(world):
    await world.publish(*texts(10))
    world.start()
    await world.answered(10)
    await world.stop("w0")
    world.cluster.recreate(TOPICS.results)
    with pytest.raises(RefusedError, match="never written"):
        await asyncio.wait_for(world.start("w1"), 30)


@story
async def test_rule_2_the_next_batch_is_handed_over_after_the_acknowledgement(world):
    on_their_way, most = 0, 0

    async def fault(member, name):
        nonlocal on_their_way, most
        if name == "produce.before":
            on_their_way += 1
            most = max(most, on_their_way)
            await asyncio.sleep(0.3)
        if name == "produce.after":
            on_their_way -= 1

    world.fault = fault
    await world.publish(*texts(30))
    world.start()
    await world.answered(30)
    assert most == 1


@story
async def test_rule_2_after_a_failed_produce_the_partition_resumes_from_the_log(world):
    failures = iter([True, False, True, True])

    async def fault(member, name):
        if name == "produce.after" and next(failures, False):
            raise BrokerUnavailableError("the acknowledgement got lost")

    world.start()
    await world.running()
    world.fault = fault
    await world.publish(*texts(12))
    await world.until(lambda: any(answer.offset == 11 for answer in world.answers()))
    reader = PartitionReader(-1)
    readings = [reader.read(answer.offset, answer.after) for answer in world.answers()]
    assert sum(reading.accepted for reading in readings) == 12
    assert all(reading.hole is None for reading in readings)


@story
async def test_rule_2_an_acknowledgement_that_never_comes_replaces_the_producer(world):
    stuck = [True]

    async def fault(member, name):
        if name == "produce.before" and stuck:
            stuck.clear()
            await asyncio.sleep(3600)

    world.start()
    await world.running()
    world.fault = fault
    await world.publish(*texts(3))
    await world.until(lambda: {answer.offset for answer in world.answers()} == {0, 1, 2})


@story
async def test_rule_3_resuming_runs_outside_the_callback_so_heartbeats_go_on(world):
    held = asyncio.Event()

    async def fault(member, name):
        if name == "committed.before":
            await held.wait()

    await world.publish(*texts(3))
    world.fault = fault
    world.start()
    await world.until(lambda: bool(world.workers["w0"]._assignment.partitions))
    generation = world.cluster.group(GROUP).generation
    await world.clock.sleep(5 * world.cluster.timings.session_timeout_s)
    assert world.cluster.group(GROUP).generation == generation
    assert not world.workers["w0"].ready
    held.set()
    await world.answered(3)


@story
async def test_rule_3_revocation_waits_for_answers_that_are_on_their_way(world):
    slow = True

    async def fault(member, name):
        if name == "produce.before" and member == "w0" and slow:
            await asyncio.sleep(1.0)

    await world.publish(*texts(20))
    world.fault = fault
    world.start("w0")
    await world.answered(4)
    world.start("w1")
    await world.until(lambda: {answer.offset for answer in world.answers()} == set(range(20)))
    assert [answer.offset for answer in world.answers()] == list(range(20))


@story
async def test_rule_4_a_new_group_may_begin_at_the_end(world):
    await world.publish(*texts(5))
    world.start(start_from="latest")
    await world.running()
    await world.publish(*texts(2))
    answers = await world.answered(2)
    assert [(answer.offset, answer.after) for answer in answers] == [(5, 4), (6, 5)]


@story
async def test_rule_4_a_group_that_died_before_its_first_answer_begins_where_it_meant_to(world):
    await world.publish(*texts(5))
    world.start(start_from="latest")
    await world.running()
    world.kill("w0")
    await world.publish(*texts(2))
    world.start("w1", start_from="latest")
    assert [answer.offset for answer in await world.answered(2)] == [5, 6]


@story
async def test_rule_4_a_new_group_may_begin_at_a_time(world):
    await world.publish(*texts(5))
    await world.clock.sleep(100)
    await world.publish(*texts(2))
    world.start(start_from="2023-11-14T22:14:00+00:00")
    assert [answer.offset for answer in await world.answered(2)] == [5, 6]


@story
async def test_rule_4_requests_that_retention_took_are_said_on_the_next_answer(world):
    await world.publish(*texts(10))
    world.start()
    await world.answered(10)
    await world.stop("w0")
    await world.publish(*texts(10))
    world.cluster.truncate(REQUESTS, 15)
    world.start("w1")
    after_loss = (await world.answered(15))[10]
    assert (after_loss.offset, after_loss.after, after_loss.lost) == (15, 9, Loss(10, 14, "retention"))
    assert all(answer.lost is None for answer in world.answers()[11:])


@story
async def test_rule_4_retention_that_overtakes_a_running_worker_is_said_too(world):
    await world.publish(*texts(4))
    world.start()
    await world.answered(4)
    world.cluster.freeze("w0")
    await world.publish(*texts(10))
    world.cluster.truncate(REQUESTS, 9)
    world.cluster.thaw("w0")
    after_loss = (await world.answered(9))[4]
    assert (after_loss.offset, after_loss.after, after_loss.lost) == (9, 3, Loss(4, 8, "retention"))


@pytest.mark.parametrize(("written", "word"), [(3, "ends at 3"), (8, "made anew")])
def test_rule_4_a_requests_topic_made_anew_stops_the_worker(written, word):
    @story
    async def play(world):
        await world.publish(*texts(5))
        world.start()
        await world.answered(5)
        await world.stop("w0")
        world.cluster.recreate(TOPICS.requests)
        await world.publish(*texts(written, first=100))
        with pytest.raises(RefusedError, match=word):
            await asyncio.wait_for(world.start("w1"), 30)

    play()


@story
async def test_rule_5_a_results_topic_belongs_to_one_group(world):
    await world.publish(*texts(2))
    world.start()
    await world.answered(2)
    with pytest.raises(RefusedError, match="results topic of its own"):
        await asyncio.wait_for(world.start("w1", group="another"), 30)


@story
async def test_rule_5_another_group_may_answer_into_its_own_results_topic(world):
    world.cluster.create_topic(TopicSpec(name="replayed", partitions=1))
    topics = WorkerTopics(TOPICS.requests, "replayed", TOPICS.dead_letters, TOPICS.models)
    await world.publish(*texts(3))
    world.start("w0")
    world.start("w1", group="another", topics=topics)
    await world.answered(3)
    await world.until(lambda: len(world.log("replayed")) == 3)
    assert [record.value for record in world.log("replayed")] == [record.value for record in world.log(TOPICS.results)]


def test_rule_5_results_must_have_as_many_partitions_as_requests():
    @story
    async def play(world):
        world.cluster.create_topic(TopicSpec(name=TOPICS.requests, partitions=2))
        with pytest.raises(RefusedError, match="add partitions to results first"):
            await asyncio.wait_for(world.start(), 30)

    play()


@story
async def test_rule_6_a_zombie_only_repeats_and_its_answers_are_the_same_bytes(world):
    async def fault(member, name):
        if name == "produce.before" and member == "w0":
            world.cluster.freeze("w0")
            await asyncio.sleep(0)

    world.start("w0")
    await world.running()
    await world.publish("one")
    await world.answered(1)
    world.fault = fault
    await world.publish(*texts(5, first=1))
    await world.clock.sleep(1)
    world.start("w1")
    await world.answered(6)
    world.fault = None
    world.cluster.thaw("w0")
    await world.publish(*texts(3, first=6))
    await world.until(lambda: {answer.offset for answer in world.answers()} == set(range(9)))
    by_offset: dict[int, set[bytes]] = {}
    for record, answer in zip(world.log(TOPICS.results), world.answers(), strict=True):
        by_offset.setdefault(answer.offset, set()).add(record.value)
    assert len(world.answers()) > 9, "the zombie appended nothing, so nothing was shown"
    assert all(len(values) == 1 for values in by_offset.values())


@story
async def test_rule_7_a_dead_letter_is_acknowledged_before_its_failed_answer(world):
    refused = [True, True]
    seen = []

    async def fault(member, name):
        failed = sum(answer.status is Status.FAILED for answer in world.answers())
        seen.append((len(world.log(TOPICS.dead_letters)), failed))
        if name == "produce.before" and refused:
            refused.pop()
            raise BrokerUnavailableError("not now")

    world.start()
    await world.running()
    world.fault = fault
    await world.publish_value(b"{not json")
    await world.answered(1)
    assert not refused
    assert all(letters >= failed for letters, failed in seen)


@story
async def test_rule_7_a_record_that_kills_the_process_is_tried_alone_and_then_failed(world):
    class Killer(SumModel):
        def classify(self, texts, ranking=0):
            if b"killer" in texts:
                world.cluster.kill(name)
                world.runs[name].cancel()
                raise asyncio.CancelledError
            return super().classify(texts, ranking)

    await world.publish("before", "killer", "behind", *texts(10))
    for generation in range(8):
        name = f"w{generation}"
        run = world.start(name, backend=Killer())
        try:
            await world.answered(13, limit=30)
            break
        except asyncio.CancelledError:
            await asyncio.gather(run, return_exceptions=True)
            world.runs.pop(name)
    statuses = {answer.offset: (answer.status, answer.reason) for answer in world.answers()}
    assert statuses.pop(1) == (Status.FAILED, "kills-process")
    assert set(statuses.values()) == {(Status.OK, None)}
    assert [record.value for record in world.log(TOPICS.dead_letters)] == [world.log(TOPICS.requests)[1].value]
    assert 3 <= generation <= 5


@story
async def test_commits_follow_the_acknowledgements_for_the_tools_that_show_lag(world):
    await world.publish(*texts(7))
    world.start()
    await world.answered(7)
    await world.until(lambda: world.cluster.committed(GROUP).get(REQUESTS) == 7)


@story
async def test_a_drain_answers_what_is_in_work_commits_and_leaves_the_group(world):
    await world.publish(*texts(40))
    world.start()
    await world.answered(8)
    await world.stop("w0")
    done = len(world.answers())
    assert world.cluster.committed(GROUP)[REQUESTS] == done
    world.start("w1")
    await world.answered(40)
    assert [answer.offset for answer in world.answers()] == list(range(40))
