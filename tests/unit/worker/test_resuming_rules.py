"""The worker's rules 1 and 4 of the answer log, a story each: where it resumes, and when it must not."""

from __future__ import annotations

import asyncio
import collections

import pytest

from headrace.kafka.interface import TopicPartition
from headrace.worker.partitions.resume import RefusedError
from headrace_schemas.records import Loss
from tests.support.memory_kafka.consumer import MemoryConsumer
from tests.support.simulation import GROUP, TOPICS
from tests.support.turned_tests import on_turned_clock
from tests.support.worker_cluster import WorkerCluster, story

REQUESTS = TopicPartition(TOPICS.requests, 0)
RESULTS = TopicPartition(TOPICS.results, 0)


def texts(count, first=0):
    return [f"text {number}" for number in range(first, first + count)]


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
    world.cluster.log(RESULTS).truncate_before(10)
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
    world.cluster.log(REQUESTS).truncate_before(15)
    world.start("w1")
    after_loss = (await world.answered(15))[10]
    assert (after_loss.offset, after_loss.after, after_loss.lost) == (15, 9, Loss(10, 14, "retention"))
    assert all(answer.lost is None for answer in world.answers()[11:])


@story
async def test_rule_4_retention_that_overtakes_a_running_worker_is_said_too(world):
    await world.publish(*texts(4))
    world.start()
    await world.answered(4)
    world.cluster.node("w0").freeze()
    await world.publish(*texts(10))
    world.cluster.log(REQUESTS).truncate_before(9)
    world.cluster.node("w0").thaw()
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


def pause_while_resuming(world, for_s):
    """Let the broker of worker w1 pause for ``for_s`` seconds in the middle of what it reads to resume."""
    node = world.cluster.node("w1")

    class Pausing(MemoryConsumer):
        until = None

        async def fetch(self, *, max_records, timeout_s, partitions=()):
            if self._assigned and next(iter(self._assigned)).topic in (TOPICS.results, TOPICS.requests):
                self.until = self.until or world.clock.monotonic() + for_s
                if world.clock.monotonic() < self.until:
                    await world.clock.sleep(timeout_s)
                    return {}
            return await super().fetch(max_records=max_records, timeout_s=timeout_s, partitions=partitions)

    node.consumer = lambda group=None, member=None, **_: Pausing(node, group=group, member=member)


@pytest.mark.parametrize("for_s", [10.0, 150.0])
def test_rule_1_a_broker_that_pauses_in_the_middle_is_no_verdict(for_s):
    @story
    async def play(world):
        await world.publish(*texts(3))
        world.start()
        await world.answered(3)
        await world.stop("w0")
        del world.cluster.group(GROUP).offsets[REQUESTS]  # so that without its tail the log would be refused
        await world.publish("one more")
        pause_while_resuming(world, for_s)
        world.start("w1")
        answers = await world.answered(4, limit=10 * for_s)
        assert [(answer.offset, answer.after) for answer in answers] == [(0, -1), (1, 0), (2, 1), (3, 2)]

    play()


def test_rule_4_a_requests_topic_made_anew_is_found_out_though_the_broker_pauses():
    @story
    async def play(world):
        await world.publish(*texts(5))
        world.start()
        await world.answered(5)
        await world.stop("w0")
        world.cluster.recreate(TOPICS.requests)
        await world.publish(*texts(8, first=100))
        pause_while_resuming(world, 10.0)
        with pytest.raises(RefusedError, match="made anew"):
            await asyncio.wait_for(world.start("w1"), 300)

    play()


@pytest.mark.parametrize("partitions", [1, 48])
def test_a_worker_that_takes_many_partitions_asks_as_few_times_as_for_one(partitions):
    @on_turned_clock(lambda: WorkerCluster(partitions=partitions))
    async def play(world):
        for number in range(partitions):
            await world.publish("one", "two", partition=number)
        world.start("w0", max_batch=1024)
        for number in range(partitions):
            await world.answered(2, number)
        await world.stop("w0")
        asked = collections.Counter()

        async def count(member, point):
            asked[point] += 1

        world.fault = count
        world.start("w1", max_batch=1024)
        await world.running("w1")
        assert asked["committed.before"] == 1
        # For the claim and for the resume; and the watchdog may have looked once.
        assert asked["offsets.before"] <= 12

    play()


def committed(world):
    return world.cluster.group(GROUP).offsets.get(REQUESTS)


@story
async def test_what_holds_no_request_behind_the_last_answer_is_no_lag_of_the_group(world):
    await world.publish(*texts(3))
    world.start()
    await world.answered(3)
    for _ in range(4):
        world.cluster.log(REQUESTS).add_gap()
    await world.until(lambda: committed(world) == 7)
    await world.publish(*texts(2, first=3))
    answers = await world.answered(5)
    assert [(answer.offset, answer.after) for answer in answers[3:]] == [(7, 2), (8, 7)]
    await world.until(lambda: committed(world) == 9)
    world.cluster.log(REQUESTS).add_gap()
    await world.until(lambda: committed(world) == 10)
    # A worker that resumes behind the last answer finds out again.
    await world.stop("w0")
    world.start("w1")
    await world.running("w1")
    await world.until(lambda: committed(world) == 10)


@story
async def test_a_group_that_has_answered_nothing_commits_nothing_that_would_stop_it(world):
    world.start()
    await world.running()
    for _ in range(3):
        world.cluster.log(REQUESTS).add_gap()
    await world.clock.sleep(30)
    await world.stop("w0")
    assert committed(world) in (None, 0)
    await world.publish("first")
    world.start("w1")
    assert [(answer.offset, answer.after) for answer in await world.answered(1)] == [(3, -1)]


@story
async def test_answers_gone_by_retention_the_next_one_still_names_the_request_before_it(world):
    await world.publish(*texts(3))
    world.start()
    await world.answered(3)
    for _ in range(4):
        world.cluster.log(REQUESTS).add_gap()
    await world.until(lambda: committed(world) == 7)
    await world.stop("w0")
    world.cluster.log(RESULTS).truncate_before(3)
    await world.publish("one more")
    world.start("w1")
    (answer,) = await world.answered(1)
    # A reader that has the answer to 2 would take any higher ``after`` for a hole.
    assert (answer.offset, answer.after, answer.lost) == (7, 2, None)
