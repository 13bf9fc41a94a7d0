"""The trainers of a run: real `headrace trainer` processes, and labels that can be learnt in seconds."""

from __future__ import annotations

import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec

from headrace_load.processes import child, headrace
from headrace_load.target import System
from headrace_load.waiting import until
from load.chaos.workers import Worker
from load.chaos.world import World

LABELS = 300
LIMIT_S = 90.0
CLASSES = {
    "sport": "goal match team player league score",
    "money": "bank rate market share profit stock",
    "sky": "rain cloud wind storm snow frost",
}
FILLING = ("the", "a", "of", "in", "to")


class Trainers:
    """Starts trainers of one group. ``store`` is a folder; ``system`` leads through the proxies."""

    def __init__(self, system: System, group: str, folder: Path, stack: AsyncExitStack) -> None:
        self.store = folder / "store"
        self._system = system
        self._group = group
        self._folder = folder
        self._stack = stack

    async def start(self, name: str) -> Worker:
        """Start one, with nothing waited for. Its name is its Kafka client id too. Raises ProgramError."""
        given = {
            "kafka.client_id": name,
            "admin.port": "0",
            "log.format": "json",
            "trainer.group": self._group,
            "trainer.store": str(self.store),
            "store.allowed": str(self._folder),
            "trainer.epochs": "2",
            "trainer.settle": "0",
            # What the workers begin with is made of random weights, so nearly every answer changes.
            "gate.max_changed": "1",
            # Beside a stream on a busy machine a latency says nothing.
            "gate.max_latency_us": "1000000",
            "gate.slower_by": "1000",
        }
        command = [sys.executable, "-m", "headrace"]
        command += [part for key, value in given.items() for part in ("--set", f"{key}={value}")]
        log = self._folder / f"{name}.log"
        begins = log.stat().st_size if log.exists() else 0
        own = await self._stack.enter_async_context(AsyncExitStack())
        started = await own.enter_async_context(
            child((*command, "trainer"), log=log, environment=self._system.environment(), orphaned=signal.SIGTERM)
        )
        return Worker(name, started, own, begins)


@asynccontextmanager
async def trainers(world: World) -> AsyncIterator[Trainers]:
    """Trainers that end with the block."""
    system = msgspec.structs.replace(world.system, bootstrap=world.cluster.behind)
    async with AsyncExitStack() as stack:
        yield Trainers(system, f"{world.system.models}-trainer", world.folder, stack)


async def publish_labels(world: World, count: int = LABELS) -> None:
    """Publish so many labels by `headrace labels`, other ones each time. Raises ProgramError."""
    file = world.folder / "labels.jsonl"
    file.write_bytes(b"\n".join(msgspec.json.encode(_row(world.rng)) for _ in range(count)))
    await headrace("labels", "publish", str(file), environment=world.system.environment())


def _row(rng: random.Random) -> dict[str, str]:
    label = rng.choice(list(CLASSES))
    words = rng.choices(CLASSES[label].split(), k=4) + rng.choices(FILLING, k=4)
    return {"text": " ".join(words), "label": label}


async def said(trainer: Worker, event: str, limit_s: float = LIMIT_S) -> None:
    """Wait until a trainer says that ``event`` happened. Raises TimeoutError, and ProgramError when it has ended."""
    await until(lambda: bool(trainer.events(event)), f"{event} of {trainer.name}", limit_s, trainer.check)
