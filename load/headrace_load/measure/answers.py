"""The answers of a run from its parent's side: how many there are now, and the reader's rows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition
from numpy.typing import NDArray

from headrace.client import AnswerReader, connect
from headrace_load.measure.audit import ANSWERED, Answers, read_rows
from headrace_load.measure.processes import MeasuringProcess, ReaderJob, ReaderProgress, measuring
from headrace_load.target import System

CLOCK_S = 10.0
ROWS = "answered.rows"
_CLOCKS = {0: "create", 1: "append"}  # Kafka's numbers of what a record's timestamp is


class Tail:
    """The results' ends, from where they were when the run began."""

    def __init__(self, reader: AnswerReader, begins: dict[int, int]) -> None:
        self._reader = reader
        self.begins = begins

    async def records(self) -> int:
        """How many answers were appended since, repeats included."""
        return sum((await self.ends()).values()) - sum(self.begins.values())

    async def ends(self) -> dict[int, int]:
        """Where each partition ends now."""
        return await self._reader.ends()


@asynccontextmanager
async def tail(system: System) -> AsyncIterator[Tail]:
    """Watch the results' ends while the block runs."""
    async with (
        connect(kafka=system.kafka_settings(), requests=system.requests, results=system.results) as client,
        client.reader("latest") as reader,
    ):
        yield Tail(reader, await reader.ends())


@asynccontextmanager
async def reading(
    system: System, answers: Answers, folder: Path, begins: dict[int, int], ends: dict[int, int] | None
) -> AsyncIterator[MeasuringProcess]:
    """Keep a reader from ``begins`` to ``ends``, or live; it is ready when the block begins."""
    job = ReaderJob(system=system, answers=answers, positions=begins, ends=ends, rows=str(folder / ROWS))
    async with measuring(job, folder, "reader") as child:
        await child.prepared()
        yield child


async def rows(reader: MeasuringProcess, folder: Path) -> tuple[NDArray[np.void], ReaderProgress]:
    """The rows of a reader that ends, and what it said of them. Raises MeasuringError."""
    await reader.end()
    assert isinstance(reader.last, ReaderProgress)  # noqa: S101 - the last thing a reader says before it ends well
    return read_rows([folder / ROWS], ANSWERED), reader.last


async def append_clock(system: System, ends: dict[int, int], begins: dict[int, int]) -> str:
    """Whose time answers bear, by the last one: "append" of the broker, "create" of the program, else "unknown"."""
    partition = next((number for number, end in ends.items() if end > begins.get(number, 0)), None)
    if partition is None:
        return "unknown"
    consumer = AIOKafkaConsumer(**system.client_options(), enable_auto_commit=False, auto_offset_reset="none")
    await consumer.start()
    try:
        where = TopicPartition(system.results, partition)
        consumer.assign([where])
        consumer.seek(where, ends[partition] - 1)
        found = await consumer.getmany(timeout_ms=int(CLOCK_S * 1000), max_records=1)
    finally:
        await consumer.stop()
    return next((_CLOCKS.get(record.timestamp_type, "unknown") for record in found.get(where, [])), "unknown")
