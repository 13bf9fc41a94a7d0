"""What a measuring process is told by its parent, and how the two talk: a file, and one JSON object a line.

A child says `ready`, then how far it is. The parent sends orders to the child's standard input. When that closes,
because the parent gave up or is gone, the child ends.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
import uvloop
from msgspec import Struct

from headrace_load.system import System
from headrace_load.workload.spec import Workload

J = TypeVar("J", bound=Struct)

NEW_OBJECTS = 50_000
"""Objects made before Python looks for circles among them. At the default's 700 it looks all the time."""


class ProducerJob(Struct, frozen=True, kw_only=True):
    """``texts`` is a file with a JSON list; the rows of columns.SENT go to the file ``rows``."""

    workload: Workload
    producer: int
    system: System
    texts: str
    ids: bool
    rows: str


class ReaderJob(Struct, frozen=True, kw_only=True):
    """``positions`` is where to begin in each results partition; ``ends`` where to end, None to read live until told.

    The rows of columns.ANSWERED go to the file ``rows``.
    """

    system: System
    answers: Literal["log", "id"]
    positions: dict[int, int]
    ends: dict[int, int] | None
    rows: str


class Ready(Struct, frozen=True, tag="ready"):
    """The child has prepared what it can."""


class Told(Struct, frozen=True, tag="told", kw_only=True):
    """What a producer has done so far, and how it goes. ``error`` is what Kafka said when it last refused records."""

    due: int
    sent: int
    acked: int
    failed: int
    late_p99_us: float | None
    """Of the last second; None when nothing was acknowledged in it."""
    complete: bool
    """All requests of its part were sent."""
    error: str | None = None


class Read(Struct, frozen=True, tag="read", kw_only=True):
    """What a reader has read so far: records of the log, and those of them that were accepted as answers."""

    records: int
    answers: int
    error: str | None = None


class Begin(Struct, frozen=True, tag="begin"):
    """The run begins at ``at_us``, microseconds since the Unix epoch."""

    at_us: int


class Stop(Struct, frozen=True, tag="stop"):
    """Send or read no more, write down what there is, and end."""


Line = Ready | Told | Read
Order = Begin | Stop


class Parent:
    """The other end of the two pipes."""

    def __init__(self, orders: asyncio.StreamReader) -> None:
        self._orders = orders

    def say(self, line: Line) -> None:
        """Write one line."""
        sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
        sys.stdout.buffer.flush()

    async def order(self) -> Order:
        """The next order. Raises EOFError when the parent is gone."""
        line = await self._orders.readline()
        if not line:
            raise EOFError("the parent has ended")
        order: Order = msgspec.json.decode(line, type=Order)
        return order


def serve(kind: type[J], main: Callable[[J, Parent], Coroutine[Any, Any, None]]) -> None:
    """Run ``main`` with the job that the command line names; for the `__main__` of a measuring process."""
    job = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=kind)
    gc.set_threshold(NEW_OBJECTS)

    async def with_parent() -> None:
        orders = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
        await main(job, Parent(orders))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(with_parent())
