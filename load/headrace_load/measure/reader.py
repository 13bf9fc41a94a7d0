"""The reader process: it records each answer with the time of its arrival.

$ python -m headrace_load.measure.reader JOB.json
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
from aiokafka import TopicPartition

from headrace.client import AnswerReader, KafkaError
from headrace_load.measure.audit import ANSWERED, STATUSES, Rows
from headrace_load.measure.processes import Parent, ReaderJob, ReaderProgress, Ready, rows_file, serve

WAIT_S = 0.2
"""Longest wait of a fetch, and so longest delay of an order to stop."""
MOST_RECORDS = 5000
TELL_S = 0.5
QUIET_S = 10.0
"""When reading up to a known end, give up after so long without a record."""
_STATUS = {status: number for number, status in enumerate(STATUSES)}
UNKNOWN = -1

Fetch = Callable[[], Awaitable[dict[int, int]]]
"""Reads once, adds rows, and returns the positions."""


class Identified(msgspec.Struct):
    """The fields of interest in an answer of a program that answers by id."""

    id: str | int | None = None
    status: str = "ok"


async def main(job: ReaderJob, parent: Parent) -> None:
    """Read until the order to stop, or up to the ends, and write the rows."""
    rows = Rows(ANSWERED)
    opened = by_log(job, rows) if job.answers == "log" else by_id(job, rows)
    file = rows_file(job)
    async with opened as fetch:
        parent.say(Ready())
        stopping = asyncio.create_task(parent.order())
        begins = sum(job.positions.values())
        positions = dict(job.positions)
        told = moved = time.monotonic()
        error: str | None = None
        while not stopping.done() and not _reached(positions, job.ends):
            before, positions = positions, {**positions, **await fetch()}
            now = time.monotonic()
            if positions != before:
                moved = now
            elif job.ends is not None and now - moved > QUIET_S:
                error = f"the answers up to {job.ends} could not be read: the log ends at {positions}"
                break
            if now - told >= TELL_S:
                told = now
                rows.flush(file)
                parent.say(ReaderProgress(records=sum(positions.values()) - begins, answers=len(rows)))
        if stopping.done():
            stopping.result()
        stopping.cancel()
    rows.flush(file)
    file.close()
    parent.say(ReaderProgress(records=sum(positions.values()) - begins, answers=len(rows), error=error))


@asynccontextmanager
async def by_log(job: ReaderJob, rows: Rows) -> AsyncIterator[Fetch]:
    """Read headrace's answer log as a user does: repeats are dropped, holes are reported."""
    async with job.system.client() as client, client.reader(job.positions) as reader:

        async def fetch() -> dict[int, int]:
            try:
                answers = await reader.read(timeout_s=WAIT_S)
            except KafkaError as error:
                if not error.retriable:
                    raise
                await asyncio.sleep(WAIT_S)
                return _positions(reader)
            arrived_us = time.time_ns() // 1000 if job.ends is None else UNKNOWN
            rows.add(
                number=[UNKNOWN] * len(answers),
                partition=[answer.partition for answer in answers],
                offset=[answer.result.offset for answer in answers],
                position=[answer.position for answer in answers],
                crc=[answer.result.crc for answer in answers],
                status=[_STATUS[answer.result.status] for answer in answers],
                hole=[answer.hole is not None for answer in answers],
                appended_us=[answer.timestamp_ms * 1000 for answer in answers],
                arrived_us=[arrived_us] * len(answers),
            )
            return _positions(reader)

        yield fetch


def _positions(reader: AnswerReader) -> dict[int, int]:
    return {partition: place.position for partition, place in reader.positions.items()}


@asynccontextmanager
async def by_id(job: ReaderJob, rows: Rows) -> AsyncIterator[Fetch]:
    """Read the answers of any program: JSON objects whose ``id`` is the request's number. Other records are left
    out.
    """
    topic = job.system.results
    async with job.system.consumer(auto_offset_reset="none", fetch_max_wait_ms=100) as consumer:
        consumer.assign([TopicPartition(topic, number) for number in job.positions])
        for number, position in job.positions.items():
            consumer.seek(TopicPartition(topic, number), position)
        decode = msgspec.json.Decoder(Identified).decode

        async def fetch() -> dict[int, int]:
            chunks = await consumer.getmany(timeout_ms=int(WAIT_S * 1000), max_records=MOST_RECORDS)
            arrived_us = time.time_ns() // 1000 if job.ends is None else UNKNOWN
            for where, records in chunks.items():
                known = [
                    (number, status, record.offset, record.timestamp)
                    for record in records
                    for number, status in _identified(decode, record.value)
                ]
                count = len(known)
                rows.add(
                    number=[number for number, *_ in known],
                    partition=[where.partition] * count,
                    offset=[UNKNOWN] * count,
                    position=[position for *_, position, _ in known],
                    crc=[0] * count,
                    status=[status for _, status, *_ in known],
                    hole=[False] * count,
                    appended_us=[timestamp * 1000 for *_, timestamp in known],
                    arrived_us=[arrived_us] * count,
                )
            return {where.partition: records[-1].offset + 1 for where, records in chunks.items() if records}

        yield fetch


def _identified(decode: Callable[[bytes], Identified], value: bytes | None) -> list[tuple[int, int]]:
    """The number and the status of an answer; an empty list if it has no number."""
    try:
        found = decode(value or b"")
        return [(int(found.id), _STATUS.get(found.status, _STATUS["failed"]))] if found.id is not None else []
    except (msgspec.DecodeError, ValueError):
        return []


def _reached(positions: dict[int, int], ends: dict[int, int] | None) -> bool:
    return ends is not None and all(positions.get(number, 0) >= end for number, end in ends.items())


if __name__ == "__main__":
    serve(ReaderJob, main)
