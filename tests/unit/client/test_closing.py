"""A client that closes, and one that was not entered."""

import asyncio
from typing import Any

import pytest

from headrace.client import (
    Client,
    ClientClosedError,
)
from headrace.kafka.interface import (
    ConsumerDeadError,
    ProducerDeadError,
)
from tests.support.client_scene import Scene, published, scene


@scene
async def test_a_waiting_call_gets_client_closed_error_and_is_not_cancelled(stage: Scene) -> None:
    async with Client(stage.cluster, clock=stage.clock) as client:
        waiting = asyncio.create_task(client.classify("nobody answers", timeout=1000))
        await published(stage)
    with pytest.raises(ClientClosedError, match=r"closed before the answer came.*unknown"):
        await waiting
    assert not waiting.cancelled()


@scene
async def test_a_publishing_call_gets_client_closed_error(stage: Scene) -> None:
    closed = asyncio.Event()

    async def slow_acknowledgement(name: str) -> None:
        if name == "produce.after":
            await closed.wait()

    async with Client(stage.cluster, clock=stage.clock) as client:
        stage.fault = slow_acknowledgement
        waiting = asyncio.create_task(client.classify("nobody answers", timeout=1000))
        await published(stage)
    closed.set()
    with pytest.raises(ClientClosedError):
        await waiting
    assert stage.clock.monotonic() < 100


@scene
async def test_a_call_that_connects_when_the_client_closes_leaves_no_task_behind(stage: Scene) -> None:
    connecting, closed = asyncio.Event(), asyncio.Event()

    async def slow_connection(name: str) -> None:
        if name == "offsets.before":
            connecting.set()
            await closed.wait()

    async with Client(stage.cluster, clock=stage.clock) as client:
        stage.fault = slow_connection
        waiting = asyncio.create_task(client.classify("nobody answers", timeout=1000))
        await connecting.wait()
    closed.set()
    with pytest.raises((ClientClosedError, ConsumerDeadError)):
        await waiting
    assert {task.get_name() for task in asyncio.all_tasks()}.isdisjoint({"awaiter"})


@scene
async def test_a_closed_client_refuses_every_call(stage: Scene) -> None:
    async with Client(stage.cluster, clock=stage.clock) as client:
        await client.publish("before")
    for late in (client.classify("late"), client.publish("late"), client.publish_many(["late"])):
        with pytest.raises(ClientClosedError, match="connect"):
            await late
    with pytest.raises(ClientClosedError):
        await anext(client.answers("beginning"))
    assert sum(len(stage.records(partition=number)) for number in (0, 1)) == 1


@scene
async def test_a_client_that_was_not_entered_refuses_every_call(stage: Scene) -> None:
    client = Client(stage.cluster, clock=stage.clock)
    for early in (client.classify("early"), client.publish("early"), client.publish_many(["early"])):
        with pytest.raises(ClientClosedError, match="async with"):
            await early
    with pytest.raises(ClientClosedError, match="async with"):
        await anext(client.answers("earliest"))
    assert not any(stage.records(partition=number) for number in (0, 1))


@scene
async def test_publish_many_ends_when_the_client_closes(stage: Scene) -> None:
    publishing, closed = asyncio.Event(), asyncio.Event()

    def endless() -> Any:
        while True:
            publishing.set()
            yield "text"

    async def slow(name: str) -> None:
        if name == "produce.after":
            await closed.wait()

    async with Client(stage.cluster, clock=stage.clock) as client:
        stage.fault = slow
        waiting = asyncio.create_task(client.publish_many(endless()))
        await publishing.wait()
    closed.set()
    with pytest.raises((ClientClosedError, ProducerDeadError)):
        await waiting


@pytest.mark.parametrize("group", [None, "billing"])
def test_a_break_out_of_answers_leaves_no_reader_after_the_client_closed(group: str | None) -> None:
    @scene
    async def play(stage: Scene) -> None:
        stage.writer.start()
        stopped: list[str] = []
        async with Client(stage.cluster, clock=stage.clock) as client:
            answers = client.answers("earliest", group=group)
            await client.publish("seen")
            async for _ in answers:
                break
            kept = next(iter(client._readers))
            stop = kept.stop

            async def watched() -> None:
                stopped.append("stopped")
                await stop()

            kept.stop = watched  # type: ignore[method-assign]
        assert stopped == ["stopped"]
        with pytest.raises(ClientClosedError):
            await anext(answers)
        await answers.aclose()
        assert stopped == ["stopped"]

    play()
