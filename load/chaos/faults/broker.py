"""What happens to brokers: killed, paused, all gone at once, too few for what a topic asks."""

from __future__ import annotations

import asyncio

from load.chaos.fault import Fault
from load.chaos.world import World

AWAY_S = 5.0
PAUSED_S = 10.0
UNDER_REPLICATED_S = 30.0
SETTLING_S = 5.0
"""After that what was on its way when a node went is acknowledged or refused."""
SHORT_S = 2.0


async def restarted(world: World) -> None:
    """The only node is killed, and started two seconds later."""
    await _away(world, 0, SHORT_S)


async def leader_killed(world: World) -> None:
    """The node that leads one of the results' partitions; others are elected, and it comes back."""
    await _away(world, await _leader(world), AWAY_S)


async def controller_killed(world: World) -> None:
    """The active controller: nothing can be elected before there is another."""
    controller = await world.cluster.controller()
    await _away(world, controller, AWAY_S)
    now = await world.cluster.controller()
    assert now != controller, f"node {controller} is still the controller, so nothing happened"


async def each_in_turn(world: World) -> None:
    """Each of the nodes is killed and comes back; the next goes before all that it missed is copied."""
    for node in world.rng.sample(range(world.cluster.nodes), world.cluster.nodes):
        await _away(world, node, SHORT_S)
        await world.moment()


async def all_killed(world: World) -> None:
    """All nodes at once, and all come back."""
    nodes = range(world.cluster.nodes)
    for node in nodes:
        world.cluster.brokers.kill(node)
    await world.wait(SHORT_S)
    for node in nodes:
        assert not world.cluster.brokers.processes[node].running, f"node {node} lives on"
    await asyncio.gather(*(world.cluster.brokers.start(node) for node in nodes))


async def paused(world: World) -> None:
    """A leader is stopped (SIGSTOP) past its session: it holds its connections and answers nobody, then it goes on."""
    node = await _leader(world)
    world.cluster.brokers.pause(node)
    await world.wait(PAUSED_S)
    assert node not in (await world.cluster.leaders(world.system.results)).values(), f"node {node} still leads"
    world.cluster.brokers.resume(node)
    await world.wait(SHORT_S)


async def under_replicated(world: World) -> None:
    """Results need three replicas, and for half a minute there are two: nothing is acknowledged, nothing is lost."""
    results = world.system.results
    await world.cluster.alter(results, {"min.insync.replicas": "3"})
    controller = await world.cluster.controller()
    node = world.rng.choice([node for node in range(world.cluster.nodes) if node != controller])
    world.cluster.brokers.kill(node)
    await world.wait(SETTLING_S)
    before = world.stream.answered
    await world.wait(UNDER_REPLICATED_S - SETTLING_S)
    assert world.stream.answered == before, "answers were acknowledged by fewer replicas than the topic asks for"
    await world.cluster.brokers.start(node)
    await world.until(lambda: world.stream.answered > before, "another answer")
    await world.cluster.alter(results, {"min.insync.replicas": "2"})


async def _leader(world: World) -> int:
    leaders = await world.cluster.leaders(world.system.results)
    return world.rng.choice(sorted(set(leaders.values())))


async def _away(world: World, node: int, seconds: float) -> None:
    """A node is killed and started again."""
    world.cluster.brokers.kill(node)
    await world.wait(seconds)
    assert not world.cluster.brokers.processes[node].running, f"node {node} lives on"
    await world.cluster.brokers.start(node)


FAULTS = (
    Fault(
        name="broker-restarted",
        title="the only one killed, back after 2 s",
        about="broker",
        strike=restarted,
    ),
    Fault(
        name="broker-leader-killed",
        title="a leader killed, back after 5 s",
        about="broker",
        strike=leader_killed,
        nodes=3,
    ),
    Fault(
        name="broker-controller-killed",
        title="the controller killed, back after 5 s",
        about="broker",
        strike=controller_killed,
        nodes=3,
    ),
    Fault(
        name="broker-each-in-turn",
        title="each of three killed in turn",
        about="broker",
        strike=each_in_turn,
        nodes=3,
    ),
    Fault(
        name="broker-all-killed",
        title="all three killed at once",
        about="broker",
        strike=all_killed,
        nodes=3,
    ),
    Fault(
        name="broker-paused",
        title="a leader stopped (SIGSTOP) for 10 s",
        about="broker",
        strike=paused,
        nodes=3,
    ),
    Fault(
        name="broker-under-replicated",
        title="min.insync.replicas of the results not met for 30 s",
        about="broker",
        strike=under_replicated,
        nodes=3,
        sequence=False,
    ),
)
