"""The stream of a run: an open loop of requests, and a reader of the answers that uses the client's helper."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headrace_load.measure.answers import ROWS, reading, tail
from headrace_load.measure.audit import ANSWERED, read_rows
from headrace_load.measure.processes import MeasuringError, MeasuringProcess, Producers, ReaderProgress, Stop, producing
from headrace_load.target import System
from headrace_load.waiting import within
from headrace_load.workload.spec import Bad, Deadlines, MadeTexts, Poisson, Workload, ZipfKeys

PARTITIONS = 4
TEXTS = MadeTexts(words=2_000, distinct=1_000, bytes=120)
LONGEST_S = 600.0
"""No run takes so long: a stream ends when it is told to."""
OUTCOMES_S = 60.0
POLL_S = 0.1
QUIET_S = 2.0
"""Longer than the reader takes to say that it has more."""


def workload(rate: float, seed: int) -> Workload:
    """Keyed requests at ``rate`` a second by Poisson; one in fifty is rubbish, one in twenty may expire."""
    return Workload(
        arrivals=Poisson(rate=rate),
        texts=TEXTS,
        seed=seed,
        seconds=LONGEST_S,
        warm_up=0.0,
        keys=ZipfKeys(keys=1_000, exponent=0.5),
        deadlines=Deadlines(timeout_ms=5_000, share=0.05),
        bad=Bad(share=0.02),
        settle=OUTCOMES_S,
    )


class Stream:
    """Producers and a reader that have begun. The reader goes on behind the producers' end."""

    def __init__(
        self,
        producers: Producers,
        reader: MeasuringProcess,
        folder: Path,
        *,
        system: System,
        begins: dict[int, int],
        stack: AsyncExitStack,
    ) -> None:
        self._producers = producers
        self._reader = reader
        self._folders = [folder]
        self._system = system
        self._begins = begins
        self._stack = stack
        self._sent: NDArray[np.void] | None = None

    @property
    def answered(self) -> int:
        """How many answers the reader has accepted, as far as it has told."""
        return self._reader.last.answers if isinstance(self._reader.last, ReaderProgress) else 0

    async def end(self) -> NDArray[np.void]:
        """Send no more; rows of audit.SENT once all outcomes are known. Raises MeasuringError."""
        if self._sent is None:
            self._producers.stop()
            self._sent = await self._producers.rows()
        return self._sent

    async def settle(self, patience_s: float) -> None:
        """Wait until the reader has as many answers as there are requests, and no more come.

        A fault may have published some of its own. Where answers are missing, none has to come for ``patience_s``.
        """
        expected = int((await self.end())["acked_us"].__ge__(0).sum())
        best, moved = -1, time.monotonic()
        while not self._reader.ended:
            if self.answered > best:
                best, moved = self.answered, time.monotonic()
            if time.monotonic() - moved > (QUIET_S if best >= expected else patience_s):
                return
            await asyncio.sleep(POLL_S)

    async def refused(self, limit_s: float) -> str:
        """Wait until the reader refuses to go on, and return why. Raises TimeoutError, AssertionError when it is well.

        :meth:`read_again` then does what it says.
        """
        try:
            async with within(limit_s, "the reader's refusal"):
                await self._reader.end()
        except MeasuringError as ended:
            return str(ended)
        raise AssertionError("the reader ended well")

    async def read_again(self) -> None:
        """Another reader begins at the beginning; of what it accepts counts what the ones before had not accepted."""
        folder = self._folders[0] / f"reader-{len(self._folders)}"
        folder.mkdir()
        self._folders.append(folder)
        self._reader = await self._stack.enter_async_context(reading(self._system, "log", folder, self._begins, None))

    async def seen(self) -> tuple[NDArray[np.void], str | None]:
        """Rows of audit.ANSWERED that the reader accepted, and why it ended before it was told, if it did."""
        error = None
        if not self._reader.ended:
            self._reader.order(Stop())
        try:
            await self._reader.end()
        except MeasuringError as ended:
            error = str(ended)
        return self.accepted(), error

    def accepted(self) -> NDArray[np.void]:
        """Rows of audit.ANSWERED of all readers, see :func:`continued`.

        What a running one accepted last is not written down yet.
        """
        return continued([read_rows([folder / ROWS], ANSWERED) for folder in self._folders])


def continued(readers: Sequence[NDArray[np.void]]) -> NDArray[np.void]:
    """What readers accepted that each began at the beginning: of a later one what is behind the highest of before."""
    rows, *others = readers
    for more in others:
        highest = {int(p): int(rows["offset"][rows["partition"] == p].max()) for p in np.unique(rows["partition"])}
        known = np.array([highest.get(int(partition), -1) for partition in more["partition"]], np.int64)
        rows = np.concatenate([rows, more[more["offset"] > known]])
    return rows


@asynccontextmanager
async def streaming(load: Workload, system: System, folder: Path, texts: Path) -> AsyncIterator[Stream]:
    """Begin to stream ``load``; what is still running ends with the block."""
    async with (
        tail(system) as end,
        AsyncExitStack() as stack,
        producing(load, system, folder, texts=texts, ids=False) as producers,
    ):
        reader = await stack.enter_async_context(reading(system, "log", folder, end.begins, None))
        producers.begin()
        yield Stream(producers, reader, folder, system=system, begins=end.begins, stack=stack)
