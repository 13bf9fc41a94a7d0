"""The real programs as child processes: started, measured, killed by their own handle."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

STOP_S = 20.0
START_S = 120.0
_TICKS = os.sysconf("SC_CLK_TCK")


class Child:
    """One `headrace` command."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    def cpu_seconds(self) -> float:
        """User and system time so far, its own and that of the members it started (Linux)."""
        return sum(_cpu_ticks(pid) for pid in _family(self.process.pid)) / _TICKS

    async def kill(self) -> None:
        """SIGKILL, as an out-of-memory killer would."""
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL when it does not end."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self.process.wait(), STOP_S)
            except TimeoutError:
                await self.kill()


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(member for child in children for member in _family(int(child)))]


def _cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


async def headrace(*arguments: str) -> str:
    """Run a command to its end and return what it printed. Raises RuntimeError with its output when it fails."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "headrace",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"headrace {' '.join(arguments)} ended with {process.returncode}: {output.decode()}")
    return output.decode()


@asynccontextmanager
async def running(*arguments: str, log: Path) -> AsyncIterator[Child]:
    """Keep a command running while the block runs; what it prints goes to ``log``."""
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "headrace", *arguments, stdout=output, stderr=output
        )
    child = Child(process)
    try:
        yield child
    finally:
        with suppress(ProcessLookupError):
            await child.stop()


@asynccontextmanager
async def apache_kafka() -> AsyncIterator[str]:
    """A one-node Apache Kafka; yields its bootstrap address."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "headrace", "broker", "--kind", "apache", stdout=asyncio.subprocess.PIPE
    )
    child = Child(process)
    try:
        assert process.stdout is not None  # noqa: S101 - asked for above
        line = await asyncio.wait_for(process.stdout.readline(), START_S)
        if not line:
            raise RuntimeError("the broker did not start; `headrace broker --kind apache` says why")
        yield line.decode().split()[-1]
    finally:
        await child.stop()
