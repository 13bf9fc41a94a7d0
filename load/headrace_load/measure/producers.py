"""All producer processes of a run as one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headrace_load.measure.children import Measuring, measuring
from headrace_load.measure.columns import SENT
from headrace_load.measure.job import Begin, ProducerJob, Stop, Told
from headrace_load.measure.rows import read_rows
from headrace_load.system import System
from headrace_load.workload.spec import Workload

SOON_US = 300_000
"""From the order to the beginning, so that every producer knows of it in time."""


class Producers:
    """Producers that are prepared."""

    def __init__(self, children: Sequence[Measuring], files: Sequence[Path]) -> None:
        self._children = children
        self._files = files

    def begin(self) -> int:
        """Let them begin in a moment, and return when that is (microseconds since the Unix epoch)."""
        at_us = time.time_ns() // 1000 + SOON_US
        for child in self._children:
            child.order(Begin(at_us))
        return at_us

    def stop(self) -> None:
        """Let them send no more; they end when what they sent has its outcome."""
        for child in self._children:
            child.order(Stop())

    def check(self) -> None:
        """Raises MeasuringError when one has failed."""
        for child in self._children:
            child.check()

    @property
    def ended(self) -> bool:
        return all(child.ended for child in self._children)

    def told(self) -> Told:
        """What they did so far, together; the lateness is of the latest of them."""
        said = [child.last for child in self._children if isinstance(child.last, Told)]
        return Told(
            due=sum(one.due for one in said),
            sent=sum(one.sent for one in said),
            acked=sum(one.acked for one in said),
            failed=sum(one.failed for one in said),
            late_p99_us=max((one.late_p99_us for one in said if one.late_p99_us is not None), default=None),
            complete=len(said) == len(self._children) and all(one.complete for one in said),
            error=next((one.error for one in said if one.error is not None), None),
        )

    async def rows(self) -> NDArray[np.void]:
        """The rows of all, once they have ended. Raises MeasuringError when one failed."""
        for child in self._children:
            await child.end()
        return read_rows(self._files, SENT)


@asynccontextmanager
async def producing(
    workload: Workload, system: System, folder: Path, *, texts: Path, ids: bool
) -> AsyncIterator[Producers]:
    """Keep the workload's producers while the block runs; they are prepared when it begins."""
    async with AsyncExitStack() as stack:
        children: list[Measuring] = []
        files: list[Path] = []
        for number in range(workload.producers):
            rows = folder / f"sent-{number}.rows"
            job = ProducerJob(
                workload=workload, producer=number, system=system, texts=str(texts), ids=ids, rows=str(rows)
            )
            children.append(await stack.enter_async_context(measuring(job, folder, f"producer-{number}")))
            files.append(rows)
        await asyncio.gather(*(child.prepared() for child in children))
        yield Producers(children, files)
