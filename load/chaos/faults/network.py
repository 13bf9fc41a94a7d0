"""What happens on the way between workers and brokers."""

from __future__ import annotations

from load.chaos.fault import Fault
from load.chaos.faults.points import at
from load.chaos.frames import PRODUCE
from load.chaos.proxy import Way
from load.chaos.world import World


async def cut(world: World) -> None:
    """All connections of all workers are reset at once."""
    for proxy in world.cluster.proxies:
        proxy.cut()
    await world.wait(3.0)


async def cut_again_and_again(world: World) -> None:
    """Every half second, for eight seconds."""
    for _ in range(16):
        for proxy in world.cluster.proxies:
            proxy.cut()
        await world.wait(0.5)


async def acknowledgement_cut(world: World) -> None:
    """Answers are appended, and the connection ends before their acknowledgement has come."""

    async def act() -> bool:
        for proxy in world.cluster.proxies:
            proxy.cut()
        return False

    for _ in range(3):
        await at(world, world.any_worker(), Way.FROM_BROKER, PRODUCE, act)
        await world.wait(1.0)


async def delayed(world: World) -> None:
    """Each frame takes 200 ms longer, both ways, for ten seconds."""
    for proxy in world.cluster.proxies:
        proxy.delay_s = 0.2
    await world.wait(10.0)
    for proxy in world.cluster.proxies:
        proxy.delay_s = 0.0


async def swallowed(world: World) -> None:
    """For ten seconds frames vanish while connections stay open."""
    for proxy in world.cluster.proxies:
        proxy.swallows = True
    await world.wait(10.0)
    for proxy in world.cluster.proxies:
        proxy.swallows = False


async def refused(world: World) -> None:
    """For ten seconds nobody is let in, and who was in is thrown out."""
    for proxy in world.cluster.proxies:
        proxy.refuses = True
        proxy.cut()
    await world.wait(10.0)
    for proxy in world.cluster.proxies:
        proxy.refuses = False


FAULTS = (
    Fault(name="network-cut", title="all connections reset", about="network", strike=cut),
    Fault(
        name="network-flapping",
        title="all connections reset, twice a second",
        about="network",
        strike=cut_again_and_again,
    ),
    Fault(
        name="network-lost-acknowledgement",
        title="connection reset between an append and its acknowledgement",
        about="network",
        strike=acknowledgement_cut,
    ),
    Fault(name="network-delayed", title="200 ms on every frame, both ways", about="network", strike=delayed),
    Fault(name="network-swallowed", title="frames vanish for 10 s", about="network", strike=swallowed),
    Fault(name="network-refused", title="connections refused for 10 s", about="network", strike=refused),
)
