"""What happens on the way between workers and brokers."""

from __future__ import annotations

import signal

from load.chaos import broken
from load.chaos.fault import Fault, World
from load.chaos.faults.actions import at, published
from load.chaos.faults.client import covered, grows, repeats, running, twice
from load.chaos.proxy import OF_GROUPS, PRODUCE, Passing, Way

BACKLOG = 6_000
BATCH = 64
"""worker.max_batch of the slow worker."""
BEYOND_S = 8.0
"""So long a worker that kept no lease would go on beside the one that took over."""


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


async def coordinator_alone(world: World) -> None:
    """A slow worker with much to do loses its group's coordinator, and no broker. The other takes over, and a reader
    starts again meanwhile.
    """
    worker = world.any_worker()
    (other,) = (one for one in world.workers.running.values() if one is not worker)
    partitions = sorted(await world.cluster.leaders(world.system.requests))
    file = world.folder / "read"
    reading = (world.system.bootstrap, world.system.results, str(file))

    async def hook(passing: Passing) -> bool:
        of_worker = passing.way is Way.TO_BROKER and passing.request.client == worker.name
        return not (of_worker and passing.request.api in OF_GROUPS)

    def assigned() -> int:
        return len(worker.events("partitions.assigned"))

    async with running(world, "reading", *reading) as reader:
        await grows(world, file)
        worker.signal(signal.SIGUSR1)
        await published(world, (f"much to do {number}" for number in range(BACKLOG)))
        before = assigned()
        for proxy in world.cluster.proxies:
            proxy.hook = hook
        await world.until(
            lambda: other.events("partitions.assigned")[-1]["partitions"] == partitions,
            f"{other.name} takes all partitions over",
        )
        await world.wait(BEYOND_S)
        await reader.kill()
    again = await repeats(world)
    most = BATCH * len(partitions)
    assert again <= most, f"{again} answers were appended again, more than a batch a partition ({most})"
    assert len(worker.events("lease.lost")) == 1, f"{worker.name} did not say once that its lease was lost"
    worker.signal(signal.SIGUSR2)
    for proxy in world.cluster.proxies:
        proxy.hook = None
    await world.until(lambda: assigned() > before, f"{worker.name} joins afresh")
    async with running(world, "reading", *reading) as reader:
        await covered(world, [file])
        await reader.kill()
    seen_again = twice(file)
    assert not seen_again, f"a reader that was started again was handed {seen_again} answers twice"
    world.notes.append(
        "it gave its partitions up by itself and joined afresh; a reader started again saw nothing twice"
    )


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
    Fault(
        name="network-coordinator-alone",
        title="a slow worker loses its group's coordinator and no broker, for about 15 s",
        about="network",
        strike=coordinator_alone,
        program=broken.command("slow_model"),
        sets={"worker.max_batch": str(BATCH)},
        sequence=False,
    ),
)
