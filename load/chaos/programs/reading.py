"""A user's reader of answers: it writes down each answer that it was handed, until it is killed.

$ python -m load.chaos.programs.reading BOOTSTRAP RESULTS FILE [GROUP]

FILE gets a line for each: the answer's partition, the offset of its request, the CRC-32 of that, the answer's own
position, and whether it was handed over with a hole. Alone it goes on behind the last whole line of FILE, which is both
its output and its place; as a member of GROUP where the group was.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from headrace.client import Answer, Place, connect


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
    bootstrap, results, where, *group = sys.argv[1:]
    asyncio.run(member(bootstrap, results, Path(where), *group) if group else alone(bootstrap, results, Path(where)))
