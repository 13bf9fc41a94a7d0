"""What happens to workers: killed at chosen points, stopped and woken, scaled, short of memory, disk and time."""

from __future__ import annotations

import signal

from load.chaos.fault import Fault
from load.chaos.world import World

SESSION_S = 6.0
"""kafka.session_timeout_ms."""
TAKEN_OVER_S = SESSION_S + 3.0


async def killed(world: World) -> None:
    """SIGKILL at a random moment, and a new process at once, as a supervisor does."""
    worker = world.any_worker()
    await worker.kill()
    await world.workers.start(worker.name)


async def killed_for_good(world: World) -> None:
    """SIGKILL, and the others have to take over when its session ends."""
    await world.any_worker().kill()
    await world.wait(TAKEN_OVER_S)


async def zombie(world: World) -> None:
    """SIGSTOP past the session timeout, and SIGCONT while others answer in its place."""
    worker = world.any_worker()
    worker.signal(signal.SIGSTOP)
    await world.wait(SESSION_S + 2.0)
    worker.signal(signal.SIGCONT)
    await world.wait(3.0)


FAULTS = (
    Fault(
        name="worker-killed",
        title="worker killed (SIGKILL), started again",
        about="worker",
        strike=killed,
        stall_s=TAKEN_OVER_S,
    ),
    Fault(
        name="worker-killed-for-good",
        title="worker killed, the other takes over",
        about="worker",
        strike=killed_for_good,
        stall_s=TAKEN_OVER_S,
    ),
    Fault(
        name="worker-zombie",
        title="worker stopped past its session (SIGSTOP), then woken",
        about="worker",
        strike=zombie,
        stall_s=TAKEN_OVER_S,
    ),
)
