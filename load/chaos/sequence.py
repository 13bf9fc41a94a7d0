"""Faults in a seeded random sequence, two at a time: one of workers, and one of what is around them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from load.chaos.fault import Fault
from load.chaos.world import World

PAIRS = 3
APART_S = 3.0


def sequence(faults: Sequence[Fault], nodes: int) -> Fault:
    """The fault of a random sequence out of ``faults`` on a cluster of so many nodes. Which, the seed says."""
    fitting = [fault for fault in faults if fault.sequence and fault.expect == "kept" and not fault.sets]
    fitting = [fault for fault in fitting if fault.server is None and fault.nodes <= nodes]
    of_workers = [fault for fault in fitting if fault.about == "worker"]
    of_others = [fault for fault in fitting if fault.about in ("network", "broker")]

    async def strike(world: World) -> None:
        for _ in range(PAIRS):
            pair = [world.rng.choice(of_workers), world.rng.choice(of_others)]
            world.rng.shuffle(pair)
            world.notes.append(" with ".join(fault.name for fault in pair))
            async with asyncio.TaskGroup() as both:
                both.create_task(pair[0].strike(world))
                both.create_task(_later(pair[1], world, world.rng.uniform(0.0, APART_S)))
            await world.cluster.whole()
            await world.staffed()

    return Fault(
        name=f"sequence-{nodes}",
        title=f"{PAIRS} random pairs of the above, {'three nodes' if nodes == 3 else 'one node'}",
        about="sequence",
        strike=strike,
        nodes=3 if nodes == 3 else 1,
        workers=2,
    )


async def _later(fault: Fault, world: World, wait_s: float) -> None:
    await world.wait(wait_s)
    await fault.strike(world)
