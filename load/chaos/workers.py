"""The workers of a run: real `headrace worker` processes, each known by its name, which is also its Kafka client id."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from headrace_load.processes import Child, ProgramError, child
from headrace_load.target import System
from headrace_load.waiting import POLL_S, slowness, within

READY_S = 60.0
RESTART_S = 0.2
FINAL = frozenset({0, 2, 3})
"""Exit codes with which a new process would end too: done, wrong settings, refused."""


class Worker:
    """One process. Its ``log`` is JSON lines, of this start and of those before under the same name."""

    def __init__(self, name: str, running: Child, stack: AsyncExitStack, begins: int) -> None:
        self.name = name
        self.pid = running.pid
        self.log = running.log
        self._running = running
        self._stack = stack
        self._begins = begins

    @property
    def code(self) -> int | None:
        """What it ended with, None while it runs."""
        return self._running.process.returncode

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self.code is None:
            os.kill(self.pid, number)

    async def kill(self) -> None:
        """SIGKILL, as an out-of-memory killer would."""
        await self._running.kill()

    async def stop(self) -> None:
        """SIGTERM, and wait until it has drained and ended."""
        await self._stack.aclose()

    async def ended(self, limit_s: float) -> int:
        """Wait until it ends by itself. Raises TimeoutError."""
        async with within(limit_s, f"the end of {self.name}"):
            return await self._running.process.wait()

    @property
    def owns_partitions(self) -> bool:
        """Whether the group gave it partitions last, as it says."""
        return bool(_last_assigned(self))

    def events(self, name: str) -> list[dict[str, object]]:
        """The events of this start, of that name."""
        return [event for event in self._events() if event.get("event") == name]

    def said(self) -> str:
        """All that this start has written."""
        return self.log.read_bytes()[self._begins :].decode(errors="replace")

    def check(self) -> None:
        """Raises ProgramError when it has ended."""
        self._running.check()

    def error(self, reason: str) -> ProgramError:
        """An error with the end of its log."""
        return self._running.error(reason)

    def _events(self) -> list[dict[str, object]]:
        found = []
        for line in self.said().splitlines():
            try:
                found.append(msgspec.json.decode(line, type=dict[str, object]))
            except msgspec.DecodeError:
                continue  # not an event, or not whole yet
        return found


class Workers:
    """Starts and keeps them. ``program`` is the command in place of `python -m headrace`."""

    def __init__(
        self,
        system: System,
        folder: Path,
        *,
        group: str,
        model: str,
        sets: Mapping[str, str],
        program: Sequence[str] = (),
    ) -> None:
        self._system = system
        self.group = group
        self.running: dict[str, Worker] = {}
        self._folder = folder
        self._model = model
        self._sets = dict(sets)
        self._program = tuple(program) or (sys.executable, "-m", "headrace")

    async def start(
        self,
        name: str,
        *,
        sets: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        program: Sequence[str] = (),
        ready: bool = True,
    ) -> Worker:
        """Start a worker; with ``ready`` wait until its partitions are resumed.

        One that ends before that is started again, as a supervisor does, unless it says that it can't go on. Raises
        ProgramError.
        """
        given = {**self._sets, "kafka.client_id": name, "admin.port": "0", "log.format": "json", **(sets or {})}
        assigned = [part for key, value in given.items() for part in ("--set", f"{key}={value}")]
        command = (*(program or self._program), *assigned, "worker", "--model", self._model, "--group", self.group)
        log = self._folder / f"{name}.log"
        begins = log.stat().st_size if log.exists() else 0
        deadline = time.monotonic() + READY_S * slowness()
        while True:
            stack = AsyncExitStack()
            started = await stack.enter_async_context(
                child(
                    (*command, *options),
                    log=log,
                    environment={**self._system.environment(), **(environment or {})},
                    orphaned=signal.SIGTERM,
                )
            )
            worker = Worker(name, started, stack, begins)
            self.running[name] = worker
            if not ready or await _resumed(worker, deadline):
                return worker

    async def leave(self, name: str) -> None:
        """One is stopped for good (SIGTERM)."""
        await self.running.pop(name).stop()

    async def end(self) -> None:
        """Stop all (SIGTERM); paused ones go on first, so that they can. They stay known by their names."""
        for worker in self.running.values():
            worker.signal(signal.SIGCONT)
        await asyncio.gather(*(worker.stop() for worker in self.running.values()))


async def _resumed(worker: Worker, deadline: float) -> bool:
    """Wait until it has partitions, or hears that there are none for it; false when it ended before and may be started
    again. Raises ProgramError.
    """
    while not (worker.events("partition.resumed") or _last_assigned(worker) == []):
        if worker.code in FINAL or time.monotonic() > deadline:
            raise worker.error(f"it was not ready in time (its exit code: {worker.code})")
        if worker.code is not None:
            await asyncio.sleep(RESTART_S)
            return False
        await asyncio.sleep(POLL_S)
    return True


def _last_assigned(worker: Worker) -> object:
    assigned = worker.events("partitions.assigned")
    return assigned[-1].get("partitions") if assigned else None
