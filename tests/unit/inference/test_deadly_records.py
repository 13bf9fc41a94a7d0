"""Rule 7 of the answer log: a record that kills its process is found out, and nothing else is accused."""

from __future__ import annotations

import asyncio

from headrace.kafka.errors import BrokerUnavailableError
from headrace_schemas.records import Status
from tests.support.models import SumModel
from tests.support.simulation import TOPICS
from tests.support.world import story

OTHERS = [f"text {number}" for number in range(10)]


class Killer(SumModel):
    """Kills the worker ``name`` over one text."""

    def __init__(self, world, name):
        super().__init__()
        self.world, self.name = world, name

    def classify(self, texts, ranking=0):
        if b"killer" in texts:
            self.world.cluster.kill(self.name)
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
        written = len(world.log(TOPICS.models))
        world.start(f"hung-{generation}", offload=hang)
        await world.until(lambda: len(world.log(TOPICS.models)) > written)
        await world.stop(f"hung-{generation}")

    died = await generations(world, given_up_untried)
    assert world.answers()[1].reason == "kills-process"
    assert 3 <= died <= 5


@story
async def test_rule_7_processes_that_end_cleanly_while_brokers_refuse_answers_accuse_no_record(world):
    def attempts():
        return sum(record.key.startswith(b"attempt/") for record in world.log(TOPICS.models))

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
