"""What a run is given, what it shows while it goes on, and how it waits for the last answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec import Struct

from headrace_load.measure.answers import Tail
from headrace_load.measure.joined import Answers
from headrace_load.measure.producers import Producers
from headrace_load.progress import Progress
from headrace_load.system import Running, Start, System
from headrace_load.workload.spec import Backlog, Workload

TICK_S = 1.0
POLL_S = 0.1
QUIET_S = 0.5
QUIET_MOST_S = 5.0


class Setting(Struct, frozen=True, kw_only=True):
    """``start`` is None where workers answer that run already; ``texts`` a file with a JSON list.

    ``folder`` is for files that are gone after the run.
    """

    workload: Workload
    system: System
    answers: Answers
    start: Start | None
    folder: Path
    texts: Path
    progress: Callable[[Progress], None]

    @asynccontextmanager
    async def contender(self) -> AsyncIterator[Running]:
        """Keep the contender running while the block runs."""
        if self.start is None:
            yield Running(pids=self.system.worker_pids, metrics=self.system.metrics)
        else:
            async with self.start() as running:
                yield running

    def show(self, phase: str, begun_us: int, producers: Producers, answered: int | None) -> None:
        """Tell how far the run is."""
        workload, told = self.workload, producers.told()
        backlog = workload.arrivals.requests if isinstance(workload.arrivals, Backlog) else None
        self.progress(
            Progress(
                phase=phase,
                elapsed_s=max(0.0, time.time() - begun_us / 1e6),
                whole_s=workload.warm_up + workload.seconds if backlog is None else None,
                requests=backlog,
                due=told.due,
                sent=told.sent,
                acked=told.acked,
                answered=answered,
                late_p99_ms=None if told.late_p99_us is None else told.late_p99_us / 1000,
            )
        )


async def settled(
    count: Callable[[], Awaitable[int]], expected: int, patience_s: float, tick: Callable[[int], None]
) -> bool:
    """Wait until ``count`` gives ``expected``; False when it has not grown for ``patience_s`` seconds.

    ``tick`` is called about once a second.
    """
    best, moved, ticked = -1, time.monotonic(), 0.0
    while (now := await count()) < expected:
        if now > best:
            best, moved = now, time.monotonic()
        elif time.monotonic() - moved > patience_s:
            return False
        if time.monotonic() - ticked >= TICK_S:
            ticked = time.monotonic()
            tick(now)
        await asyncio.sleep(POLL_S)
    return True


def given_up(workload: Workload) -> str:
    """What a result notes when the last answers were not waited for any longer."""
    return f"Requests were left without an answer when none had come for {workload.settle:g} s."


async def quiet(end: Tail) -> dict[int, int]:
    """Wait until no answers come any more, not for ever, and return where the results end.

    Answers were counted, and one that was counted may have been a repeat, or to a request of somebody else.
    """
    ends, until = await end.ends(), time.monotonic() + QUIET_MOST_S
    while time.monotonic() < until:
        await asyncio.sleep(QUIET_S)
        before, ends = ends, await end.ends()
        if before == ends:
            break
    return ends
