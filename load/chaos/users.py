"""Programs of users that chaos runs kill: a publisher, and a reader of answers. Each writes what it knows into FILE.

    python -m load.chaos.users publisher BOOTSTRAP REQUESTS RESULTS FILE
    python -m load.chaos.users reading BOOTSTRAP RESULTS FILE [GROUP]

The publisher writes a line for each request that Kafka has acknowledged: partition, offset and CRC-32. The reader
writes a line for each answer that it was handed: the answer's partition, the offset of its request, the request's
CRC-32, the answer's own position, and whether a hole was before it. A reader alone goes on behind the last whole line
of FILE, a member of GROUP where the group was.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
from pathlib import Path

from headrace.client import Answer, Place, connect

BATCH = 20


async def publish(bootstrap: str, requests: str, results: str, file: Path) -> None:
    """Publish until killed."""
    with file.open("a", encoding="ascii") as told:
        async with connect(bootstrap, requests=requests, results=results) as client:
            for number in itertools.count():
                texts = [f"text {place} of batch {number} of process {os.getpid()}" for place in range(BATCH)]
                for known in await client.publish_many(texts):
                    told.write(f"{known.partition} {known.offset} {known.crc}\n")
                told.flush()


def line(answer: Answer) -> str:
    """An answer as a line of the file."""
    result = answer.result
    hole = int(answer.hole is not None)
    return f"{answer.partition} {result.offset} {result.crc} {answer.position} {hole}\n"


def whole_lines(file: Path) -> list[list[int]]:
    """The lines of the file but for one that a kill has cut, which is taken out of it too."""
    if not file.exists():
        return []
    data = file.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    file.write_bytes(whole)
    return [[int(part) for part in found.split()] for found in whole.splitlines()]


async def alone(bootstrap: str, results: str, file: Path) -> None:
    """Read all partitions until killed."""
    places = {partition: Place(position + 1, offset) for partition, offset, _, position, _ in whole_lines(file)}
    with file.open("a", encoding="ascii") as told:
        async with connect(bootstrap, results=results) as client, client.reader(places) as reader:
            while True:
                for answer in await reader.read():
                    told.write(line(answer))
                told.flush()


async def member(bootstrap: str, results: str, file: Path, group: str) -> None:
    """Read as a member of ``group`` until killed; at SIGTERM it commits and leaves."""
    whole_lines(file)
    reading = asyncio.current_task()
    assert reading is not None  # noqa: S101 - this is one
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, reading.cancel)
    with file.open("a", encoding="ascii") as told:
        async with connect(bootstrap, results=results) as client, client.group_reader(group, "beginning") as reader:
            while True:
                for answer in await reader.read():
                    if reader.owns(answer):
                        told.write(line(answer))
                        told.flush()
                        reader.mark(answer)
                await reader.commit(every_s=0.5)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["publisher", bootstrap, requests, results, file]:
            asyncio.run(publish(bootstrap, requests, results, Path(file)))
        case ["reading", bootstrap, results, file]:
            asyncio.run(alone(bootstrap, results, Path(file)))
        case ["reading", bootstrap, results, file, group]:
            asyncio.run(member(bootstrap, results, Path(file), group))
        case _:
            sys.exit(__doc__)
