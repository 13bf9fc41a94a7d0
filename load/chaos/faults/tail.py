"""What happens when the results lose their last answers, though they were acknowledged: unclean elections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace_load.waiting import within
from load.chaos.fault import Fault
from load.chaos.history import read_answers
from load.chaos.world import World

SETTLING_S = 2.0
TAIL_S = 3.0
ELECTED_S = 60.0
READER_S = 10.0


async def tail_lost(world: World) -> None:
    """The results' only replica in sync dies, and one that has not its last answers is elected (uncleanly)."""
    await _elect_uncleanly(world, lambda _: world.wait(TAIL_S))
    held = world.stream.accepted()
    await world.stream.read_again()
    await world.wait(SETTLING_S)
    now, _ = await read_answers(world.system)
    names = ["partition", "position", "appended_us"]
    lost = len(np.setdiff1d(held[names], now[names]))
    assert lost, "no answer was lost, so nothing happened"
    world.notes.append(f"{lost:,} answers vanished; the reader said that the log was cut, workers answered anew")


async def tail_lost_to_strangers(world: World) -> None:
    """The same, and the elected one knows nothing of the producers, so it takes their next answers: a hole is left."""
    names = tuple(world.workers.running)

    async def renewed(leader: int) -> None:
        await world.workers.end()
        # Of the other addresses one belongs to the node that hangs, and asking it takes its time.
        first = {"HEADRACE_KAFKA__BOOTSTRAP": f"127.0.0.1:{world.cluster.proxies[leader].port}"}
        await asyncio.gather(*(world.workers.start(name, environment=first) for name in names))
        await world.wait(TAIL_S)

    await _elect_uncleanly(world, renewed)
    await world.stream.read_again()
    await world.wait(SETTLING_S)
    now, _ = await read_answers(world.system)
    holes = _holes(now)
    assert holes, "no hole was left, so nothing happened"
    said = {event["partition"] for name in names for event in world.workers.running[name].events("results.cut")}
    assert said >= {partition for partition, *_ in holes}, f"holes {holes}, but workers spoke of partitions {said} only"
    world.said += holes
    world.notes.append("workers said that answers are gone, and readers are told of the hole")


async def _elect_uncleanly(world: World, tail: Callable[[int], Coroutine[Any, Any, None]]) -> None:
    """Lose what results are appended during ``tail``, which is told who leads, and wait until the reader said so."""
    cluster, results = world.cluster, world.system.results
    leader, behind, _ = world.rng.sample(range(3), 3)
    await cluster.reassign(results, dict.fromkeys(await cluster.leaders(results), (leader, behind)))
    await cluster.alter(results, {"unclean.leader.election.enable": "true", "min.insync.replicas": "1"})
    cluster.brokers.pause(behind)
    await _led_by(world, leader)
    await tail(leader)
    cluster.brokers.kill(leader)
    cluster.brokers.resume(behind)
    await _led_by(world, behind)
    message = await world.stream.refused(READER_S)
    assert "was cut or made anew" in message, message
    await cluster.brokers.start(leader)
    await cluster.alter(results, {"unclean.leader.election.enable": "false"})


async def _led_by(world: World, node: int) -> None:
    async with within(ELECTED_S, f"the election of node {node}"):
        while set((await world.cluster.leaders(world.system.results)).values()) != {node}:
            await world.wait(0.2)


def _holes(log: NDArray[np.void]) -> list[tuple[int, int, int]]:
    """Ranges of requests that a reader from the beginning is told have no answer, as rows of LOST."""
    holes = []
    highest: dict[int, int] = {}
    for row in log:
        partition, offset, after = int(row["partition"]), int(row["offset"]), int(row["after"])
        before = highest.get(partition, -1)
        if offset > before:
            if after > before:
                holes.append((partition, before + 1, after))
            highest[partition] = offset
    return holes


FAULTS = (
    Fault(
        name="log-results-lost-tail",
        title="results lost their tail (an unclean election)",
        about="log",
        strike=tail_lost,
        nodes=3,
        sequence=False,
    ),
    Fault(
        name="log-results-lost-tail-to-strangers",
        title="results lost their tail to a leader that knows no producer",
        about="log",
        strike=tail_lost_to_strangers,
        nodes=3,
        expect="said",
        sequence=False,
    ),
)
