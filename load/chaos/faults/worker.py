"""What happens to workers: killed at chosen points, stopped and woken, scaled, short of memory, disk and time."""

from __future__ import annotations

import asyncio
import signal

from load.chaos import broken
from load.chaos.broken import HELD_S
from load.chaos.cluster import FETCH, PRODUCE, Way
from load.chaos.faults.actions import at
from load.chaos.world import Fault, Strike, World, declares

FAULTS: list[Fault] = []
fault = declares(FAULTS)

SESSION_S = 6.0
"""kafka.session_timeout_ms."""
TAKEN_OVER_S = SESSION_S + 3.0
REBALANCED_S = 3.0
BURST = 20_000
OUT_OF_MEMORY_S = 30.0
WITH_RECORDS = 350
"""Bytes of a fetch's reply that certainly holds records."""


@fault("worker-killed", "killed (SIGKILL), started again", stall_s=TAKEN_OVER_S, sequence=True)
async def killed(world: World) -> None:
    """SIGKILL at a random moment, and a new process at once, as a supervisor does."""
    worker = world.any_worker()
    await worker.kill()
    await world.workers.start(worker.name)


@fault("worker-killed-for-good", "killed, the other takes over", stall_s=TAKEN_OVER_S, sequence=True)
async def killed_for_good(world: World) -> None:
    """SIGKILL; the others have to take over when its session ends."""
    await world.any_worker().kill()
    await world.wait(TAKEN_OVER_S)


@fault("worker-killed-in-a-row", "killed five times", sequence=True)
async def killed_again_and_again(world: World) -> None:
    """Five kills, each while the one before is perhaps still being resumed."""
    for _ in range(5):
        worker = world.any_process()
        await worker.kill()
        await world.workers.start(worker.name, ready=False)
        await world.moment(2.0)


def killed_at(way: Way, api: int, *, forward: bool, least: int = 0) -> Strike:
    """SIGKILL when a frame passes, before it is forwarded or dropped; then a new process."""

    async def strike(world: World) -> None:
        worker = world.any_worker()

        async def act() -> bool:
            await worker.kill()
            return forward

        await at(world, worker, way, api, act, least=least)
        await world.workers.start(worker.name)

    return strike


fault("worker-killed-after-fetch", "killed when records have come", stall_s=TAKEN_OVER_S, sequence=True)(
    killed_at(Way.FROM_BROKER, FETCH, forward=True, least=WITH_RECORDS)
)
fault(
    "worker-killed-before-publish",
    "killed as its answers leave, which don't arrive",
    stall_s=TAKEN_OVER_S,
    sequence=True,
)(killed_at(Way.TO_BROKER, PRODUCE, forward=False))
fault(
    "worker-killed-while-publishing", "killed as its answers leave, which arrive", stall_s=TAKEN_OVER_S, sequence=True
)(killed_at(Way.TO_BROKER, PRODUCE, forward=True))
fault(
    "worker-killed-before-commit",
    "killed between the acknowledgement and the commit",
    sets={"worker.commit_every": "5"},
    stall_s=TAKEN_OVER_S,
    sequence=True,
)(killed_at(Way.FROM_BROKER, PRODUCE, forward=False))


@fault("worker-zombie", "stopped past its session (SIGSTOP), then woken", stall_s=TAKEN_OVER_S, sequence=True)
async def zombie(world: World) -> None:
    """SIGSTOP past the session timeout, and SIGCONT while others answer in its place."""
    worker = world.any_worker()
    worker.signal(signal.SIGSTOP)
    await world.wait(SESSION_S + 2.0)
    worker.signal(signal.SIGCONT)
    await world.wait(3.0)


@fault(
    "worker-zombie-flush",
    "stopped while its answers hang on the way, which arrive after others'",
    stall_s=TAKEN_OVER_S,
    sequence=True,
)
async def zombies_flush(world: World) -> None:
    """Its answers are held back while it is stopped, and are appended behind those of the worker that took over."""
    worker = world.any_worker()

    async def act() -> bool:
        worker.signal(signal.SIGSTOP)
        await world.wait(SESSION_S + 2.0)
        return True

    await at(world, worker, Way.TO_BROKER, PRODUCE, act)
    worker.signal(signal.SIGCONT)
    await world.wait(3.0)


@fault("worker-terminated", "stopped (SIGTERM), started again", stall_s=REBALANCED_S, sequence=True)
async def terminated(world: World) -> None:
    """SIGTERM: it drains and leaves. Then it is started again."""
    worker = world.any_worker()
    await worker.stop()
    assert worker.code == 0, f"a worker ended with {worker.code} at SIGTERM"
    await world.workers.start(worker.name)


@fault("worker-rolling-restart", "rolling restart of two", stall_s=REBALANCED_S, sequence=True)
async def rolled(world: World) -> None:
    """Each worker in turn is stopped and started."""
    for name in tuple(world.workers.running):
        await world.workers.running[name].stop()
        await world.workers.start(name)


@fault("worker-scaled", "scaled 1, 4, 1 under load", workers=1, stall_s=REBALANCED_S, sequence=True)
async def scaled(world: World) -> None:
    """Three more join, then three leave."""
    more = ("second", "third", "fourth")
    await asyncio.gather(*(world.workers.start(name) for name in more))
    await world.wait(2.0)
    await asyncio.gather(*(world.workers.leave(name) for name in more))


@fault("worker-rebalances", "twenty rebalances a minute", workers=1, stall_s=REBALANCED_S, sequence=True)
async def storm(world: World) -> None:
    """A worker joins or leaves every three seconds: twenty rebalances a minute."""
    for _ in range(4):
        await world.workers.start("guest")
        await world.wait(1.5)
        await world.workers.leave("guest")
        await world.wait(1.5)


@fault("worker-out-of-memory", "no more memory", program=broken.command("no_memory"), stall_s=TAKEN_OVER_S)
async def out_of_memory(world: World) -> None:
    """It gets no more memory and then much to do at once. It ends, and a supervisor starts it again."""
    worker = world.any_worker()
    worker.signal(signal.SIGUSR1)
    async with world.system.client() as client:
        await client.publish_many(f"{'much to do at once ' * 100}{number}" for number in range(BURST))
    code = await worker.ended(OUT_OF_MEMORY_S)
    assert code != 0, "a worker without memory must not seem to have done its work"
    world.notes.append(f"it ended with {code}")
    await world.workers.start(worker.name)


@fault("worker-full-disk", "no file can be written", stall_s=TAKEN_OVER_S, sequence=True)
async def full_disk(world: World) -> None:
    """A worker that can write nothing to disk is started; when it answers, the others leave."""
    others = tuple(world.workers.running)
    await world.workers.start("full", program=broken.command("full_disk"))
    for name in others:
        await world.workers.leave(name)
    before = world.stream.answered
    await world.until(lambda: world.stream.answered > before + 400, "400 more answers")
    for name in others:
        await world.workers.start(name)
    await world.workers.leave("full")


@fault(
    "worker-held-loop",
    f"event loop held for {HELD_S:g} s",
    program=broken.command("held_loop"),
    stall_s=TAKEN_OVER_S + 3.0,
)
async def held(world: World) -> None:
    """Its event loop does nothing for longer than the session."""
    world.any_worker().signal(signal.SIGUSR1)
    await world.wait(HELD_S + 2.0)


@fault("worker-clock-jumps", "its clock jumps an hour ahead, then two back", program=broken.command("jumping_clock"))
async def clock_ahead(world: World) -> None:
    """Its clock jumps an hour ahead: what has a deadline expires, and it says that a clock is wrong."""
    worker = world.any_worker()
    worker.signal(signal.SIGUSR1)
    await world.until(lambda: bool(worker.events("clock.suspect")), "the warning of a suspect clock")
    world.notes.append("requests with a deadline expired, and it said that a clock is wrong")
    worker.signal(signal.SIGUSR2)
    await world.wait(3.0)
