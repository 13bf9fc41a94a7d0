"""A user's publisher: it writes down each request that Kafka has acknowledged to it, until it is killed.

$ python -m load.chaos.programs.publisher BOOTSTRAP REQUESTS RESULTS FILE

FILE gets a line for each: partition, offset and CRC-32.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from pathlib import Path

from headrace.client import connect

BATCH = 20


async def main(bootstrap: str, requests: str, results: str, file: Path) -> None:
    """Publish until killed."""
    with file.open("a", encoding="ascii") as told:
        async with connect(bootstrap, requests=requests, results=results) as client:
            for number in itertools.count():
                texts = [f"text {place} of batch {number} of process {os.getpid()}" for place in range(BATCH)]
                for known in await client.publish_many(texts):
                    told.write(f"{known.partition} {known.offset} {known.crc}\n")
                told.flush()


if __name__ == "__main__":
    bootstrap, requests, results, where = sys.argv[1:]
    asyncio.run(main(bootstrap, requests, results, Path(where)))
