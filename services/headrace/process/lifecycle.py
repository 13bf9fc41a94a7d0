"""A process's life: the event loop, the signals that ask it to stop, and an end that can't hang."""

from __future__ import annotations

import asyncio
import faulthandler
import importlib.util
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from headrace.process.logs import event

T = TypeVar("T")

EXIT_UNDRAINED = 75
"""Ended with work left over; what it was is in the log of answers, so the next owner takes it up."""


def run(main: Callable[[asyncio.Event], Coroutine[Any, Any, T]], *, drain_s: float) -> T:
    """Run ``main`` with an event that SIGTERM and SIGINT set; uvloop runs it where it is installed.

    From then on ``main`` has ``drain_s`` seconds to return. Past them the process ends by os._exit: a Kafka client
    whose stop hangs would live on as a zombie of its group. A second SIGINT ends it at once.
    """
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_until_drained(main, drain_s))


@asynccontextmanager
async def ends_when_held(limit_s: float) -> AsyncIterator[None]:
    """While the block runs, end the process with 1 when its event loop does nothing for ``limit_s`` seconds.

    A loop that is held can't look at itself. The interpreter's own timer needs neither the loop nor Python's lock, and
    writes to stderr where every thread stood. A process that was stopped for longer ends when it goes on.
    """

    async def put_off() -> None:
        while True:
            faulthandler.dump_traceback_later(limit_s, exit=True)
            await asyncio.sleep(min(1.0, limit_s / 4))

    task = asyncio.create_task(put_off(), name="held loop")
    try:
        yield
    finally:
        task.cancel()
        faulthandler.cancel_dump_traceback_later()


async def _until_drained(main: Callable[[asyncio.Event], Coroutine[Any, Any, T]], drain_s: float) -> T:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _ask_to_stop, loop, stop, number)
    running = loop.create_task(main(stop), name="main")
    asked = loop.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait((running, asked), return_when=asyncio.FIRST_COMPLETED)
        if not running.done() and not (await asyncio.wait((running,), timeout=drain_s))[0]:
            event("process.undrained", level="error", seconds=drain_s)
            logging.shutdown()
            sys.stdout.flush()
            os._exit(EXIT_UNDRAINED)
        return running.result()
    finally:
        asked.cancel()
        running.cancel()


def _ask_to_stop(loop: asyncio.AbstractEventLoop, stop: asyncio.Event, number: int) -> None:
    event("process.stopping", signal=signal.Signals(number).name)
    stop.set()
    if number == signal.SIGINT:
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if importlib.util.find_spec("uvloop") is None:
        return None
    # Only a worker's install has it.
    import uvloop  # noqa: PLC0415

    return uvloop.new_event_loop
