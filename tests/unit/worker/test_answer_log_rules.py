"""The worker's rules 2, 3 and 5 to 7 of the answer log, a story each."""

from __future__ import annotations

import asyncio
import zlib

import pytest
from prometheus_client import CollectorRegistry

from headrace.core.answer_log import PartitionReader
from headrace.kafka.interface import BrokerUnavailableError, TopicPartition, TopicSpec
from headrace.worker.metrics import WorkerMetrics
from headrace.worker.partitions.resume import RefusedError
from headrace.worker.worker import WorkerTopics
from headrace_schemas.records import Status
from tests.support.models import label_of
from tests.support.simulation import GROUP, TOPICS
from tests.support.worker_cluster import story

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
async def test_rule_2_the_next_batch_is_handed_over_after_the_acknowledgement(world):
    on_their_way, most = 0, 0

    async def fault(member, name):
        nonlocal on_their_way, most
        if name == "produce.before":
            on_their_way += 1
            most = max(most, on_their_way)
            await world.clock.sleep(0.3)
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
            await world.clock.sleep(3600)

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
    assert world.workers["w0"].unready
    held.set()
    await world.answered(3)


@story
async def test_rule_3_revocation_waits_for_answers_that_are_on_their_way(world):
    slow = True

    async def fault(member, name):
        if name == "produce.before" and member == "w0" and slow:
            await world.clock.sleep(1.0)

    await world.publish(*texts(20))
    world.fault = fault
    world.start("w0")
    await world.answered(4)
    world.start("w1")
    await world.until(lambda: {answer.offset for answer in world.answers()} == set(range(20)))
    assert [answer.offset for answer in world.answers()] == list(range(20))


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
    topics = WorkerTopics(TOPICS.requests, "replayed", TOPICS.dead_letters, TOPICS.models, TOPICS.workers)
    await world.publish(*texts(3))
    world.start("w0")
    world.start("w1", group="another", topics=topics)
    await world.answered(3)
    await world.until(lambda: len(world.log("replayed")) == 3)
    assert [record.value for record in world.log("replayed")] == [record.value for record in world.log(TOPICS.results)]


@story
async def test_rule_5_a_worker_that_starts_answers_the_partitions_that_results_has(world):
    world.cluster.create_topic(TopicSpec(name=TOPICS.requests, partitions=2))
    await world.publish(*texts(2))
    await world.publish("not yet", partition=1)
    world.start()
    await world.answered(2)
    await world.until(lambda: "requests has a partition 1" in (world.workers["w0"].unready or ""))


@story
async def test_rule_6_a_zombie_only_repeats_and_its_answers_are_the_same_bytes(world):
    async def fault(member, name):
        if name == "produce.before" and member == "w0":
            world.cluster.node("w0").freeze()
            await world.clock.sleep(0)

    # A frozen process has no time-outs, and what it had handed over arrives when it wakes.
    world.start("w0", publish_timeout=60.0)
    await world.running()
    await world.publish("one")
    await world.answered(1)
    world.fault = fault
    await world.publish(*texts(5, first=1))
    await world.clock.sleep(1)
    world.start("w1")
    await world.answered(6)
    world.fault = None
    world.cluster.node("w0").thaw()
    await world.publish(*texts(3, first=6))
    await world.until(lambda: {answer.offset for answer in world.answers()} == set(range(9)))
    by_offset: dict[int, set[bytes]] = {}
    for record, answer in zip(world.log(TOPICS.results), world.answers(), strict=True):
        by_offset.setdefault(answer.offset, set()).add(record.value)
    assert len(world.answers()) > 9, "the zombie appended nothing, so nothing was shown"
    assert all(len(values) == 1 for values in by_offset.values())


@story
async def test_dead_letters_go_while_the_answers_before_them_wait_for_their_acknowledgement(world):
    held: list[bool] = []
    letters_meanwhile: list[int] = []

    async def hold_the_first(member, name):
        if name == "produce.before" and not held:
            held.append(True)
            await world.until(lambda: len(world.log(TOPICS.dead_letters)) == 1)
            letters_meanwhile.append(len(world.answers()))

    world.start(max_batch=2)
    await world.running()
    await world.publish("one")
    await world.answered(1)
    world.fault = hold_the_first
    await world.publish(*texts(2, first=1))
    await world.publish_value(b"{not json")
    await world.answered(4)
    assert letters_meanwhile == [1]


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


def cut(caplog) -> list[tuple[int, int]]:
    """(end, end before) of each time that a worker said that answers are gone."""
    said = [record for record in caplog.records if getattr(record, "event", "") == "results.cut"]
    return [(record.fields["end"], record.fields["was"]) for record in said]


def test_a_worker_says_that_acknowledged_answers_are_gone_when_it_appends_in_their_place(caplog):
    @story
    async def play(world):
        world.start()
        await world.publish(*texts(5))
        await world.answered(5)
        world.cluster.log(RESULTS).drop_tail(3)
        assert not cut(caplog)
        await world.publish("one more")
        await world.answered(4)
        assert cut(caplog) == [(3, 5)]
        await world.publish("and one")
        await world.answered(5)
        assert len(cut(caplog)) == 1

    play()


def test_a_worker_says_that_acknowledged_answers_are_gone_when_it_resumes_and_answers_again(caplog):
    @story
    async def play(world):
        async def fault(member, name):
            if name == "produce.before":
                world.fault = None
                world.cluster.log(RESULTS).drop_tail(3)
                raise BrokerUnavailableError("no leader")

        world.start()
        await world.publish(*texts(5))
        await world.answered(5)
        world.fault = fault
        await world.publish("one more")
        answers = await world.answered(6)
        assert [answer.offset for answer in answers] == list(range(6))
        assert cut(caplog) == [(3, 5)]

    play()


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


@story
async def test_rule_5_a_worker_answers_what_it_can_of_a_requests_topic_that_another_tool_grew(world):
    admin = world.cluster.admin()
    registry = CollectorRegistry()
    world.start(metrics=WorkerMetrics(registry), watchdog=20.0)
    await world.publish("before")
    await world.answered(1)
    await admin.add_partitions(TOPICS.requests, 3)
    await world.publish("of a new one", partition=2)
    await world.until(lambda: registry.get_sample_value("headrace_partitions_unanswerable") == 2)
    # Old partitions are answered, and neither the watchdog nor a refusal ends the worker.
    await world.clock.sleep(100)
    await world.publish("behind")
    assert [answer.offset for answer in await world.answered(2)] == [0, 1]
    assert "requests has a partition 2 that is missing in results and dead-letters" in world.workers["w0"].unready
    assert "`headrace topics apply --grow`" in world.workers["w0"].unready
    assert registry.get_sample_value("headrace_lag_records", {"partition": "2"}) == 1
    await admin.add_partitions(TOPICS.results, 3)
    await admin.add_partitions(TOPICS.dead_letters, 3)
    assert [(answer.offset, answer.after) for answer in await world.answered(1, partition=2)] == [(0, -1)]
    await world.running()
    assert registry.get_sample_value("headrace_partitions_unanswerable") == 0


def test_rule_5_what_another_tool_grew_is_said_once(caplog):
    @story
    async def play(world):
        world.start()
        await world.running()
        admin = world.cluster.admin()
        await admin.add_partitions(TOPICS.dead_letters, 3)
        await admin.add_partitions(TOPICS.requests, 3)
        await world.clock.sleep(600)
        await admin.add_partitions(TOPICS.results, 2)
        await world.clock.sleep(600)
        await world.publish("one", partition=1)
        await world.answered(1, partition=1)

    play()
    said = [
        record.fields["partitions"]
        for record in caplog.records
        if getattr(record, "event", "") == "partitions.unanswerable"
    ]
    assert said == [[1, 2], [2]]


@story
async def test_rule_5_a_partition_that_the_dead_letters_topic_lacks_waits_beside_the_others(world):
    admin = world.cluster.admin()
    registry = CollectorRegistry()
    run = world.start(metrics=WorkerMetrics(registry), watchdog=20.0)
    await world.publish("before")
    await world.answered(1)
    await admin.add_partitions(TOPICS.results, 3)
    await admin.add_partitions(TOPICS.requests, 3)
    await world.publish_value(b"rubbish", partition=2)
    await world.until(lambda: run.done() or registry.get_sample_value("headrace_partitions_unanswerable") == 2)
    assert not run.done(), run.exception()
    # Neither the watchdog nor a dead letter of the others ends the worker.
    await world.clock.sleep(100)
    await world.publish_value(b"rubbish")
    assert [answer.status for answer in await world.answered(2)] == [Status.OK, Status.FAILED]
    assert "requests has a partition 2 that is missing in dead-letters" in world.workers["w0"].unready
    assert "`headrace topics apply --grow`" in world.workers["w0"].unready
    await admin.add_partitions(TOPICS.dead_letters, 3)
    assert [answer.status for answer in await world.answered(1, partition=2)] == [Status.FAILED]
    assert len(world.log(TOPICS.dead_letters, 2)) == 1
    await world.running()
    assert registry.get_sample_value("headrace_partitions_unanswerable") == 0


def test_rule_5_what_is_still_missing_is_said_when_it_is_something_else(caplog):
    @story
    async def play(world):
        world.start()
        await world.running()
        admin = world.cluster.admin()
        await admin.add_partitions(TOPICS.requests, 2)
        await world.clock.sleep(60)
        await admin.add_partitions(TOPICS.results, 2)
        await world.clock.sleep(60)
        await admin.add_partitions(TOPICS.dead_letters, 2)
        await world.running()

    play()
    said = [
        record.fields["why"] for record in caplog.records if getattr(record, "event", "") == "partitions.unanswerable"
    ]
    missing = [why.partition("missing in ")[2].partition(",")[0] for why in said]
    assert missing == ["results and dead-letters", "dead-letters"]
