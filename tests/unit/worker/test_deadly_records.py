"""Rule 7 of the answer log: a record that kills its process is found out, and nothing else is accused."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from headrace.kafka.interface import BrokerUnavailableError, Outgoing, TopicPartition
from headrace_schemas.codec import encode_workers_record
from headrace_schemas.records import Attempt, Status
from headrace_schemas.topics import workers_key
from tests.support.models import SumModel
from tests.support.simulation import TOPICS
from tests.support.worker_cluster import story

OTHERS = [f"text {number}" for number in range(10)]


class Killer(SumModel):
    """Kills the worker ``name`` over one text."""

    def __init__(self, world, name):
        super().__init__()
        self.world, self.name = world, name

    def classify(self, texts, ranking=0):
        if b"killer" in texts:
            self.world.cluster.node(self.name).kill()
            self.world.runs[self.name].cancel()
            raise asyncio.CancelledError
        return super().classify(texts, ranking)


async def nothing(generation):
    """Happens between a death and the next start."""


async def generations(world, between=nothing):
    """Start worker after worker until the deadly text and all around it are answered; how many died of it."""
    await world.publish("before", "killer", "behind", *OTHERS)
    for generation in range(8):
        name = f"w{generation}"
        run = world.start(name, backend=Killer(world, name))
        try:
            await world.answered(13, limit=30)
        except asyncio.CancelledError:
            await asyncio.gather(run, return_exceptions=True)
            world.runs.pop(name)
        else:
            return generation
        await between(generation)
    raise AssertionError("eight were not enough")


@story
async def test_rule_7_a_record_that_kills_the_process_is_tried_alone_and_then_failed(world):
    died = await generations(world)
    statuses = {answer.offset: (answer.status, answer.reason) for answer in world.answers()}
    assert statuses.pop(1) == (Status.FAILED, "kills-process")
    assert set(statuses.values()) == {(Status.OK, None)}
    assert [record.value for record in world.log(TOPICS.dead_letters)] == [world.log(TOPICS.requests)[1].value]
    assert 3 <= died <= 5


@story
async def test_rule_7_deaths_count_on_over_processes_that_give_the_partition_up_untried(world):
    async def hang(work):
        await asyncio.Event().wait()

    async def given_up_untried(generation):
        written = len(world.log(TOPICS.workers))
        world.start(f"hung-{generation}", offload=hang)
        await world.until(lambda: len(world.log(TOPICS.workers)) > written)
        await world.stop(f"hung-{generation}")

    died = await generations(world, given_up_untried)
    assert world.answers()[1].reason == "kills-process"
    assert 3 <= died <= 5


@story
async def test_rule_7_processes_that_end_cleanly_while_brokers_refuse_answers_accuse_no_record(world):
    def attempts():
        return sum(record.key.startswith(b"attempt/") for record in world.log(TOPICS.workers))

    async def fault(member, name):
        if name == "produce.before" and not refusing.is_set() and attempts() > before:
            refusing.set()
            raise BrokerUnavailableError("not enough replicas")
        if name == "offsets.before" and refusing.is_set():
            raise BrokerUnavailableError("the new leader knows no end yet")

    refusing = asyncio.Event()
    await world.publish(*OTHERS[:3])
    world.fault = fault
    for generation in range(4):
        refusing.clear()
        before = attempts()
        world.start(f"w{generation}")
        await world.until(refusing.is_set)
        await world.clock.sleep(1)
        await world.stop(f"w{generation}")
    world.fault = None
    world.start("last")
    answers = await world.answered(3)
    assert {answer.status for answer in answers} == {Status.OK}


@pytest.mark.parametrize("error", [None, BrokerUnavailableError("the leader ended")])
def test_rule_7_an_attempt_that_is_under_way_when_its_partition_is_given_up_is_taken_back(error):
    """Or the next owner would take this process for dead."""

    async def play(world):
        async def fault(member, name):
            if name == "produce.after" and world.log(TOPICS.workers)[-1].key.startswith(b"attempt/"):
                world.fault = None
                appended.set()
                await world.clock.sleep(1)
                if error is not None:
                    raise error

        appended = asyncio.Event()
        await world.publish(*OTHERS)
        world.fault = fault
        world.start("w0")
        await world.until(appended.is_set)
        await world.workers["w0"]._assignment.revoked([TopicPartition(TOPICS.requests, 0)])
        last = world.log(TOPICS.workers)[-1]
        assert last.key.startswith(b"attempt/")
        assert last.value is None

    story(play)()


def attempt(**parts):
    """An attempt at the first request, as a process leaves it that died there once, alone."""
    fields = {"offset": 0, "through": 3, "process": "another", "alone": True, "deaths": 1, **parts}
    return Attempt(results=TOPICS.results, partition=0, **fields)


async def write(world, *records, topic=TOPICS.workers, key=None):
    outgoing = [Outgoing(encode_workers_record(record), key or workers_key(record)) for record in records]
    await world.producer.send_batch(topic, 0, outgoing)


FORGED = {
    "deaths that nobody counted": attempt(deaths=99),
    "deaths that are less than none": attempt(deaths=-1),
    "deaths of a batch that was not tried alone": attempt(alone=False, deaths=2),
    "all requests there will ever be": attempt(through=10**12, deaths=2),
    "all requests there ever were": attempt(offset=-(10**12), through=10**12),
    "a range that ends before it begins": attempt(offset=3, through=0),
    "another place": attempt(offset=1, through=4, deaths=2),
}


@pytest.mark.parametrize("what", FORGED)
def test_an_attempt_that_no_worker_can_have_written_fails_and_slows_nothing(what):
    async def play(world):
        await world.publish(*OTHERS)
        await write(world, FORGED[what])
        world.start("w0")
        assert {answer.status for answer in await world.answered(10)} == {Status.OK}
        (partition,) = world.workers["w0"]._assignment.partitions.values()
        assert partition.attempts.alone_through == -1

    story(play)()


@story
async def test_an_attempt_under_a_key_that_no_tombstone_takes_back_accuses_nothing(world):
    await world.publish(*OTHERS)
    await write(world, attempt(deaths=2), key=b"attempt/another/0")
    world.start("w0")
    assert {answer.status for answer in await world.answered(10)} == {Status.OK}


@story
async def test_one_by_one_is_for_a_batch_at_most_and_the_workers_own_attempt_ends_it(world):
    await world.publish(*map(str, range(40)))
    await write(world, attempt())
    world.start("w0")
    await world.answered(40)
    (partition,) = world.workers["w0"]._assignment.partitions.values()
    assert partition.attempts.alone_through == 3
    assert partition.attempts.evidence is not None
    await world.stop("w0")
    world.start("w1")
    await world.running("w1")
    (partition,) = world.workers["w1"]._assignment.partitions.values()
    assert partition.attempts.alone_through == -1


@story
async def test_a_record_with_an_impossible_name_and_any_tombstone_stop_no_worker(world):
    for topic in (TOPICS.workers, TOPICS.models):
        await write(world, msgspec.structs.replace(attempt(), results="a/b"), topic=topic, key=b"x")
        await world.producer.send_batch(topic, 0, [Outgoing(None, b"y")])
    await world.publish(*OTHERS)
    world.start("w0")
    await world.answered(10)


@story
async def test_what_killed_a_worker_of_an_older_version_is_tried_alone_by_one_of_today(world):
    await world.publish(*OTHERS)
    await write(world, attempt(alone=False, deaths=0), topic=TOPICS.models)
    world.start("w0")
    await world.running()
    (partition,) = world.workers["w0"]._assignment.partitions.values()
    assert partition.attempts.alone_through == 3
    assert {answer.status for answer in await world.answered(10)} == {Status.OK}


@story
async def test_who_may_write_versions_can_have_no_request_condemned(world):
    await world.publish(*OTHERS)
    await write(world, attempt(deaths=2), topic=TOPICS.models)
    world.start("w0")
    assert {answer.status for answer in await world.answered(10)} == {Status.OK}


@story
async def test_deaths_count_on_from_what_an_older_worker_left(world):
    await world.publish("killer", *OTHERS)
    await write(world, attempt(alone=False, deaths=0), topic=TOPICS.models)
    died = 0
    for generation in range(6):
        name = f"w{generation}"
        run = world.start(name, backend=Killer(world, name))
        try:
            await world.answered(11, limit=30)
            break
        except asyncio.CancelledError:
            await asyncio.gather(run, return_exceptions=True)
            world.runs.pop(name)
            died += 1
    assert world.answers()[0].reason == "kills-process"
    assert died == 2  # the older worker's was the first of three
