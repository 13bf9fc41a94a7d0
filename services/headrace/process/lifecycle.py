"""The life of a process: its event loop, the signals that ask it to stop, and an end that can't hang. And a parent
process that starts several members of a group, stops them, and restarts them when they die.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import importlib.util
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from headrace.core.clock import Clock
from headrace.core.errors import InterruptedChildError, NoProgramError, one_of_all
from headrace.process.child_process import ending_with_parent
from headrace.process.logs import change_level, event, level

T = TypeVar("T")

EXIT_UNDRAINED = 75
"""The process ended with unfinished work. The answer log shows which, so the next owner does it."""


def run(main: Callable[[asyncio.Event], Coroutine[Any, Any, T]], *, drain_s: float) -> T:
    """Run ``main`` with an event that SIGTERM and SIGINT set; uvloop runs it where it is installed.

    After the signal ``main`` has ``drain_s`` seconds to return. Then the process ends by os._exit, because a Kafka
    client whose stop hangs would live on as a zombie of its group. A second SIGINT ends it at once.
    """
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_until_drained(main, drain_s))


CTRL_C_S = 1.0
"""How much later than a child's end our own part of a Ctrl-C may be noticed: it goes to all processes at once."""


async def until_stopped(work: Coroutine[Any, Any, T], stop: asyncio.Event) -> T | None:
    """What ``work`` returns; None when ``stop`` is set before. Then ``work`` is cancelled, and its end is waited for.

    Raises what ``work`` raises, at its end too. An InterruptedChildError counts as ``stop`` when that is set as well.
    """
    running = asyncio.ensure_future(work)
    asked = asyncio.ensure_future(stop.wait())
    await asyncio.wait((running, asked), return_when=asyncio.FIRST_COMPLETED)
    if _child_interrupted(running):
        await asyncio.wait((asked,), timeout=CTRL_C_S)
    asked.cancel()
    if not running.done():
        running.cancel()
        await asyncio.wait((running,))
    return None if running.cancelled() or (stop.is_set() and _child_interrupted(running)) else running.result()


def _child_interrupted(running: asyncio.Future[Any]) -> bool:
    ended = running.done() and not running.cancelled()
    return ended and isinstance(running.exception(), InterruptedChildError)


@asynccontextmanager
async def ends_when_held(limit_s: float) -> AsyncIterator[None]:
    """While the block runs, end the process with exit code 1 when its event loop is blocked for ``limit_s`` seconds.

    A blocked loop can't watch itself. faulthandler's timer needs neither the loop nor Python's lock, and writes the
    stack of every thread to stderr. A process that was stopped (SIGSTOP) for longer ends when it continues.
    """

    async def put_off() -> None:
        while True:
            faulthandler.dump_traceback_later(limit_s, exit=True)
            await asyncio.sleep(min(1.0, limit_s / 4))

    task = asyncio.create_task(put_off(), name="held loop")
    try:
        yield
    finally:
        task.cancel()
        faulthandler.cancel_dump_traceback_later()


async def _until_drained(main: Callable[[asyncio.Event], Coroutine[Any, Any, T]], drain_s: float) -> T:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _ask_to_stop, loop, stop, number)
    _let_levels_change(loop)
    running = loop.create_task(main(stop), name="main")
    asked = loop.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait((running, asked), return_when=asyncio.FIRST_COMPLETED)
        if not running.done() and not (await asyncio.wait((running,), timeout=drain_s))[0]:
            event("process.undrained", level="error", seconds=drain_s)
            logging.shutdown()
            sys.stdout.flush()
            os._exit(EXIT_UNDRAINED)
        return running.result()
    finally:
        asked.cancel()
        running.cancel()


def _ask_to_stop(loop: asyncio.AbstractEventLoop, stop: asyncio.Event, number: int) -> None:
    event("process.stopping", signal=signal.Signals(number).name)
    stop.set()
    if number == signal.SIGINT:
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _let_levels_change(loop: asyncio.AbstractEventLoop) -> None:
    """SIGUSR1 logs everything, SIGUSR2 what was set. Only this user and root can send them, and no port is opened.

    A handler that is there already, of a program that runs this one, stays.
    """
    for number, to in _level_signals():
        if signal.getsignal(number) is signal.SIG_DFL:
            loop.add_signal_handler(number, change_level, to, number.name)


def _level_signals() -> tuple[tuple[signal.Signals, str], ...]:
    """The signals that change the log's level, and to which: everything, or what was set."""
    return (signal.SIGUSR1, "debug"), (signal.SIGUSR2, level())


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if importlib.util.find_spec("uvloop") is None:
        return None
    # Only a worker's install has it.
    import uvloop  # noqa: PLC0415

    return uvloop.new_event_loop


EXIT_DONE = 0
EXIT_SETTINGS = 2
EXIT_REFUSED = 3
"""A person has to act: the log was cut or made anew, or a results topic belongs to another group."""
EXIT_LATE = 4
"""A command waited for something, and its time-out passed."""

CANT_START = 1
"""Stands for the exit code of a child that could not be started for lack of memory or processes."""

FINAL = frozenset({EXIT_DONE, EXIT_SETTINGS, EXIT_REFUSED})


class RestartPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The wait before a restart doubles from ``first`` to ``longest`` seconds. After a run of ``healthy`` seconds it
    begins at ``first`` again.
    """

    first: float = 0.2
    longest: float = 30.0
    healthy: float = 60.0


class Restarts:
    """The restarts of one slot."""

    def __init__(self, policy: RestartPolicy) -> None:
        self._policy = policy
        self._failures = 0

    def after(self, exit_code: int, ran_s: float) -> float | None:
        """How many seconds to wait before the next start; None when a new process would end in the same way."""
        if exit_code in FINAL:
            return None
        if ran_s >= self._policy.healthy:
            self._failures = 0
        # After so many doublings every wait exceeds the longest. The bound keeps the power in a float's range.
        wait = self._policy.first * 2.0 ** min(self._failures, 64)
        self._failures += 1
        return min(wait, self._policy.longest)


async def supervise(
    command: Callable[[int], Sequence[str]],
    processes: int,
    *,
    stop: asyncio.Event,
    clock: Clock,
    grace_s: float,
    policy: RestartPolicy | None = None,
) -> int:
    """Keep ``processes`` children running, each started by ``command(slot)``, until ``stop`` is set.

    Then they get SIGTERM, and SIGKILL ``grace_s`` seconds later; on Linux they also get SIGTERM when the parent dies.
    Signals that change the log's level are passed on, also to children that start later. A child with an exit code of
    :data:`FINAL` ends them all. Returns the highest exit code. Raises NoProgramError.
    """
    ending, levels = asyncio.Event(), _Levels()
    slots = [
        _Slot(
            slot,
            command(slot),
            Restarts(policy or RestartPolicy()),
            ending=ending,
            levels=levels,
            clock=clock,
            grace_s=grace_s,
        )
        for slot in range(processes)
    ]
    levels.hear(asyncio.get_running_loop())
    try:
        async with asyncio.TaskGroup() as group:
            forwarded = group.create_task(_forward(stop, ending))
            codes = [group.create_task(slot.run()) for slot in slots]
            await ending.wait()
            await asyncio.wait(codes)
            forwarded.cancel()
    except ExceptionGroup as raised:
        raise one_of_all(raised) from raised
    return max((code.result() for code in codes), default=EXIT_DONE)


async def _forward(stop: asyncio.Event, ending: asyncio.Event) -> None:
    await stop.wait()
    ending.set()


class _Levels:
    """The last signal that changed the log's level, for the children of this process."""

    def __init__(self) -> None:
        self._last: signal.Signals | None = None
        self._moved = asyncio.Event()

    def hear(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take note of the signals from now on, where the loop heeds them."""
        for number, to in _level_signals():
            if loop.remove_signal_handler(number):
                loop.add_signal_handler(number, self._heard, to, number)

    def _heard(self, to: str, number: signal.Signals) -> None:
        change_level(to, number.name)
        self._last = number
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def tell(self, child: asyncio.subprocess.Process, clock: Clock) -> None:
        """Pass each signal on to ``child``, once it heeds it: before, the signal would end it. Until cancelled."""
        told = None
        while True:
            moved, number = self._moved, self._last
            if number is None or number == told:
                await moved.wait()
            elif _heeds(child.pid, number):
                with contextlib.suppress(ProcessLookupError):
                    child.send_signal(number)
                told = number
            else:
                await clock.sleep(HEEDS_S)


HEEDS_S = 0.2
"""How often it is looked whether a child heeds signals by now."""


def _heeds(pid: int, number: signal.Signals) -> bool:
    """Whether the process has a handler for ``number``. Only Linux tells; elsewhere it is believed to have one."""
    if sys.platform != "linux":
        return True
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:  # it has ended
        return False
    caught = next((line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")), "0")
    return bool(int(caught, 16) >> (number - 1) & 1)


class _Slot:
    """The children that run one after another in a slot."""

    def __init__(
        self,
        slot: int,
        command: Sequence[str],
        restarts: Restarts,
        *,
        ending: asyncio.Event,
        levels: _Levels,
        clock: Clock,
        grace_s: float,
    ) -> None:
        self._levels = levels
        self._slot = slot
        self._command = command
        self._restarts = restarts
        self._ending = ending
        self._clock = clock
        self._grace_s = grace_s

    async def run(self) -> int:
        """Return the exit code of the last child. Ending by our SIGTERM, or by the Ctrl-C that ends us, is no fault."""
        while not self._ending.is_set():
            begun = self._clock.monotonic()
            code = await self._child()
            if self._ending.is_set():
                return EXIT_DONE if code in (-signal.SIGTERM, -signal.SIGINT) else abs(code)
            wait = self._restarts.after(code, self._clock.monotonic() - begun)
            event("member.ended", level="error", slot=self._slot, code=code, restart_in_s=wait)
            if wait is None:
                self._ending.set()
                return code
            await _first(self._ending.wait(), self._clock.sleep(wait))
        return EXIT_DONE

    async def _child(self) -> int:
        """Run one child to its end. A session of its own keeps the terminal's Ctrl-C for the parent to forward."""
        try:
            child = await asyncio.create_subprocess_exec(*ending_with_parent(self._command), start_new_session=True)
        except NoProgramError:
            raise
        except OSError as error:
            event("member.start_failed", level="error", slot=self._slot, error=error.strerror or str(error))
            return CANT_START
        event("member.started", slot=self._slot, pid=child.pid)
        telling = asyncio.create_task(self._levels.tell(child, self._clock), name="levels")
        try:
            await _first(child.wait(), self._ending.wait())
            if child.returncode is None:
                child.terminate()
                await _first(child.wait(), self._clock.sleep(self._grace_s))
        finally:
            telling.cancel()
            if child.returncode is None:
                event("member.killed", level="error", slot=self._slot, pid=child.pid)
                child.kill()
                await child.wait()
        return await child.wait()


async def _first(*waits: Coroutine[Any, Any, object]) -> None:
    """Wait for the first of ``waits`` and cancel the others."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
