"""A member of a group of readers as a process of its own, so that it can be killed: a line an answer it had.

$ python -m tests.support.group_member BOOTSTRAP RESULTS GROUP
"""

from __future__ import annotations

import asyncio
import sys

import msgspec

from headrace.client import Client
from headrace.kafka.aio import AioKafkaCluster
from headrace.kafka.brokers import embedded_settings


async def main(bootstrap: str, results: str, group: str) -> None:
    # Settings that every broker can follow, and a session so short that a test can wait for its end.
    settings = msgspec.structs.replace(embedded_settings(bootstrap), session_timeout_ms=1_200)
    async with Client(AioKafkaCluster(settings), results=results) as client:
        async for one in client.answers("beginning", group=group):
            sys.stdout.write(f"{one.partition} {one.result.offset}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
