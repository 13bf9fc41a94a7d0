"""What happens to workers: killed at chosen points, stopped and woken, scaled, short of memory, disk and time."""

from __future__ import annotations

import asyncio
import signal

from headrace.client import connect
from load.chaos import broken
from load.chaos.broken import HELD_S
from load.chaos.cluster import FETCH, PRODUCE, Way
from load.chaos.faults.actions import at
from load.chaos.world import Fault, Strike, World

SESSION_S = 6.0
"""kafka.session_timeout_ms."""
TAKEN_OVER_S = SESSION_S + 3.0
REBALANCED_S = 3.0
BURST = 20_000
OUT_OF_MEMORY_S = 30.0
WITH_RECORDS = 350
"""Bytes of a fetch's reply that certainly holds records."""


async def killed(world: World) -> None:
    """SIGKILL at a random moment, and a new process at once, as a supervisor does."""
    worker = world.any_worker()
    await worker.kill()
    await world.workers.start(worker.name)


async def killed_for_good(world: World) -> None:
    """SIGKILL, and the others have to take over when its session ends."""
    await world.any_worker().kill()
    await world.wait(TAKEN_OVER_S)


async def killed_again_and_again(world: World) -> None:
    """Five kills, each while the one before is perhaps still being resumed."""
    for _ in range(5):
        worker = world.any_worker()
        await worker.kill()
        await world.workers.start(worker.name, ready=False)
        await world.moment(2.0)


def killed_at(way: Way, api: int, *, forward: bool, least: int = 0) -> Strike:
    """SIGKILL when a frame passes, before it is forwarded, if it is; then a new process."""

    async def strike(world: World) -> None:
        worker = world.any_worker()

        async def act() -> bool:
            await worker.kill()
            return forward

        await at(world, worker, way, api, act, least=least)
        await world.workers.start(worker.name)

    return strike


async def zombie(world: World) -> None:
    """SIGSTOP past the session timeout, and SIGCONT while others answer in its place."""
    worker = world.any_worker()
    worker.signal(signal.SIGSTOP)
    await world.wait(SESSION_S + 2.0)
    worker.signal(signal.SIGCONT)
    await world.wait(3.0)


async def zombies_flush(world: World) -> None:
    """Its answers hang on the way while it is stopped, and are appended behind those of who took over."""
    worker = world.any_worker()

    async def act() -> bool:
        worker.signal(signal.SIGSTOP)
        await world.wait(SESSION_S + 2.0)
        return True

    await at(world, worker, Way.TO_BROKER, PRODUCE, act)
    worker.signal(signal.SIGCONT)
    await world.wait(3.0)


async def terminated(world: World) -> None:
    """SIGTERM: it drains and leaves. Then it is started again."""
    worker = world.any_worker()
    await worker.stop()
    assert worker.code == 0, f"a worker ended with {worker.code} at SIGTERM"
    await world.workers.start(worker.name)


async def rolled(world: World) -> None:
    """Each worker in turn is stopped and started."""
    for name in tuple(world.workers.running):
        await world.workers.running[name].stop()
        await world.workers.start(name)


async def scaled(world: World) -> None:
    """Three more join, then three leave."""
    more = ("second", "third", "fourth")
    await asyncio.gather(*(world.workers.start(name) for name in more))
    await world.wait(2.0)
    await asyncio.gather(*(world.workers.leave(name) for name in more))


async def storm(world: World) -> None:
    """A worker joins or leaves every three seconds: twenty rebalances a minute."""
    for _ in range(4):
        await world.workers.start("guest")
        await world.wait(1.5)
        await world.workers.leave("guest")
        await world.wait(1.5)


async def out_of_memory(world: World) -> None:
    """It has no more memory, and then much to do at once; what it ends with, a supervisor starts again."""
    worker = world.any_worker()
    worker.signal(signal.SIGUSR1)
    async with connect(world.system.bootstrap, requests=world.system.requests, results=world.system.results) as client:
        await client.publish_many(f"{'much to do at once ' * 100}{number}" for number in range(BURST))
    code = await worker.ended(OUT_OF_MEMORY_S)
    assert code != 0, "a worker without memory must not seem to have done its work"
    world.notes.append(f"it ended with {code}")
    await world.workers.start(worker.name)


async def full_disk(world: World) -> None:
    """A worker is started that can keep nothing on disk; when it answers, the others leave."""
    others = tuple(world.workers.running)
    await world.workers.start("full", program=broken.command("full_disk"))
    for name in others:
        await world.workers.leave(name)
    before = world.stream.answered
    await world.until(lambda: world.stream.answered > before + 400, "400 more answers")
    for name in others:
        await world.workers.start(name)
    await world.workers.leave("full")


async def held(world: World) -> None:
    """Its event loop does nothing for longer than the session."""
    world.any_worker().signal(signal.SIGUSR1)
    await world.wait(HELD_S + 2.0)


async def clock_ahead(world: World) -> None:
    """Its clock jumps an hour ahead: what has a deadline expires, and it says that a clock is wrong."""
    worker = world.any_worker()
    worker.signal(signal.SIGUSR1)
    await world.until(lambda: bool(worker.events("clock.suspect")), "the warning of a suspect clock")
    world.notes.append("requests with a deadline expired, and it said that a clock is wrong")
    worker.signal(signal.SIGUSR2)
    await world.wait(3.0)


FAULTS = (
    Fault(
        name="worker-killed",
        title="killed (SIGKILL), started again",
        about="worker",
        strike=killed,
        stall_s=TAKEN_OVER_S,
    ),
    Fault(
        name="worker-killed-for-good",
        title="killed, the other takes over",
        about="worker",
        strike=killed_for_good,
        stall_s=TAKEN_OVER_S,
    ),
    Fault(
        name="worker-killed-in-a-row",
        title="killed five times",
        about="worker",
        strike=killed_again_and_again,
    ),
    Fault(
        name="worker-killed-after-fetch",
        title="killed when records have come",
        about="worker",
        strike=killed_at(Way.FROM_BROKER, FETCH, forward=True, least=WITH_RECORDS),
        stall_s=TAKEN_OVER_S,
    ),
    Fault(
        name="worker-killed-before-publish",
        title="killed as its answers leave, which don't arrive",
        about="worker",
        strike=killed_at(Way.TO_BROKER, PRODUCE, forward=False),
        stall_s=TAKEN_OVER_S,
    ),
    Fault(
        name="worker-killed-while-publishing",
        title="killed as its answers leave, which arrive",
        about="worker",
        strike=killed_at(Way.TO_BROKER, PRODUCE, forward=True),
        stall_s=TAKEN_OVER_S,
    ),
    Fault(
        name="worker-killed-before-commit",
        title="killed between the acknowledgement and the commit",
        about="worker",
        strike=killed_at(Way.FROM_BROKER, PRODUCE, forward=False),
        sets={"worker.commit_every": "5"},
        stall_s=TAKEN_OVER_S,
    ),
    Fault(
        name="worker-zombie",
        title="stopped past its session (SIGSTOP), then woken",
        about="worker",
        strike=zombie,
        stall_s=TAKEN_OVER_S,
    ),
    Fault(
        name="worker-zombie-flush",
        title="stopped while its answers hang on the way, which arrive after others'",
        about="worker",
        strike=zombies_flush,
        stall_s=TAKEN_OVER_S,
    ),
    Fault(
        name="worker-terminated",
        title="stopped (SIGTERM), started again",
        about="worker",
        strike=terminated,
        stall_s=REBALANCED_S,
    ),
    Fault(
        name="worker-rolling-restart",
        title="rolling restart of two",
        about="worker",
        strike=rolled,
        stall_s=REBALANCED_S,
    ),
    Fault(
        name="worker-scaled",
        title="scaled 1, 4, 1 under load",
        about="worker",
        strike=scaled,
        workers=1,
        stall_s=REBALANCED_S,
    ),
    Fault(
        name="worker-rebalances",
        title="twenty rebalances a minute",
        about="worker",
        strike=storm,
        workers=1,
        stall_s=REBALANCED_S,
    ),
    Fault(
        name="worker-out-of-memory",
        title="no more memory",
        about="worker",
        strike=out_of_memory,
        program=broken.command("no_memory"),
        sequence=False,
        stall_s=TAKEN_OVER_S,
    ),
    Fault(
        name="worker-full-disk",
        title="no file can be written",
        about="worker",
        strike=full_disk,
        stall_s=TAKEN_OVER_S,
    ),
    Fault(
        name="worker-held-loop",
        title=f"event loop held for {HELD_S:g} s",
        about="worker",
        strike=held,
        program=broken.command("held_loop"),
        sequence=False,
        stall_s=TAKEN_OVER_S + 3.0,
    ),
    Fault(
        name="worker-clock-jumps",
        title="its clock jumps an hour ahead, then two back",
        about="worker",
        strike=clock_ahead,
        program=broken.command("jumping_clock"),
        sequence=False,
    ),
)
