"""Records sent while they are read: each as soon as it is there, counted, and with an end that says how many went.

Reading blocks, a pipe perhaps for ever, so it has a thread of its own; whatever is there when the last batch was
acknowledged makes the next one. A signal and an error end it between two batches.
"""

from __future__ import annotations

import asyncio
import io
import signal
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial

from headrace.core.errors import StoppedError, UserError, noting
from headrace.core.text import quantity
from headrace.kafka.interface import Cluster, Outgoing

BATCH = 2000
"""Records of a batch at most: of so many it may be unknown whether they went."""

DRAIN_S = 5.0
"""What a batch under way has to be acknowledged after a signal."""

STDIN = "-"
STDIN_NAME = "standard input"

Send = Callable[[Sequence[Outgoing]], Awaitable[object]]


def standard_input() -> io.BufferedReader:
    """Standard input by a stream of our own: a thread that still reads it holds the interpreter's at its end.

    Raises UserError where there is none.
    """
    try:
        return open(sys.stdin.fileno(), "rb", closefd=False)
    except (AttributeError, ValueError, OSError) as error:
        raise UserError("There is no standard input to read; name a file.") from error


def producing(cluster: Cluster, topic: str) -> Callable[[], AbstractAsyncContextManager[Send]]:
    """What :func:`send_all` connects by: a producer of ``cluster`` that sends to ``topic``."""

    @asynccontextmanager
    async def connected() -> AsyncIterator[Send]:
        producer = cluster.producer()
        await producer.start()
        try:
            yield partial(producer.send_many, topic)
        finally:
            await producer.stop()

    return connected


def send_all(
    records: Iterator[Outgoing],
    connected: Callable[[], AbstractAsyncContextManager[Send]],
    *,
    noun: str,
    topic: str,
    go_on: Callable[[int], str],
    tell: Callable[[int], None] = lambda _: None,
) -> int:
    """Send ``records`` in their order and return how many there were; ``tell`` is told after each batch.

    Raises StoppedError after SIGINT or SIGTERM, and whatever ``records`` and ``connected`` raise with a note. Both say
    how many of ``noun`` are known to be acknowledged, and by ``go_on`` of that number how to go on.
    """
    return asyncio.run(_Sending(records, connected, noun, topic, go_on, tell).run())


class _Sending:
    def __init__(
        self,
        records: Iterator[Outgoing],
        connected: Callable[[], AbstractAsyncContextManager[Send]],
        noun: str,
        topic: str,
        go_on: Callable[[int], str],
        tell: Callable[[int], None],
    ) -> None:
        self._records = records
        self._connected = connected
        self._noun, self._topic = noun, topic
        self._go_on = go_on
        self._tell = tell
        self._sent = 0
        self._under_way = 0

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        stopped: asyncio.Future[signal.Signals] = loop.create_future()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, _stop, loop, stopped, number)
        feed = _Feed(self._records, loop)
        sending = loop.create_task(self._send(feed))
        await asyncio.wait((sending, stopped), return_when=asyncio.FIRST_COMPLETED)
        if not sending.done():
            if self._under_way:
                feed.end()
                await asyncio.wait((sending,), timeout=DRAIN_S)
            sending.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await sending
            raise StoppedError(stopped.result(), self._known())
        with noting(self._known):
            return await sending

    async def _send(self, feed: _Feed) -> int:
        async with self._connected() as send:
            feed.start()
            while batch := await feed.take():
                self._under_way = len(batch)
                await send(batch)
                self._sent, self._under_way = self._sent + len(batch), 0
                self._tell(self._sent)
        return self._sent

    def _known(self) -> str:
        if not self._sent and not self._under_way:
            return "Nothing was published."
        unknown = f", and of {self._under_way:,} more it is unknown" if self._under_way else ""
        to = f"to {self._topic}"
        sent = quantity(self._sent, f"{self._noun} {to} was", f"{self._noun}s {to} were")
        return f"{sent} published{unknown}. {self._go_on(self._sent)}"


def _stop(loop: asyncio.AbstractEventLoop, stopped: asyncio.Future[signal.Signals], number: signal.Signals) -> None:
    if not stopped.done():
        stopped.set_result(number)
    # Whoever asks a second time does not want to wait.
    loop.remove_signal_handler(number)
    signal.signal(number, signal.SIG_DFL)


class _Feed:
    """The records that a thread has read and nobody took yet, at most a batch of them.

    A lock for each record would cost as much as reading it, so the thread appends without one and looks behind it
    whether the taker is hungry. The taker says that it is before it looks whether there is something.
    """

    def __init__(self, records: Iterator[Outgoing], loop: asyncio.AbstractEventLoop) -> None:
        self._records = records
        self._loop = loop
        self._there = asyncio.Event()
        self._room = threading.Condition()
        self._waiting: deque[Outgoing] = deque()
        self._hungry = False
        self._ended = False
        self._stopped = False
        self._fault: Exception | None = None

    def start(self) -> None:
        # A daemon, because nothing ends a thread that waits for a pipe.
        threading.Thread(target=self._read, name="reading", daemon=True).start()

    def end(self) -> None:
        """Give nothing more."""
        with self._room:
            self._ended = self._stopped = True
            self._room.notify()
        self._there.set()

    async def take(self) -> Sequence[Outgoing]:
        """All that is there, once something is; nothing at the end. Raises what the reading raised, behind the rest."""
        while True:
            self._there.clear()
            if self._stopped:
                return ()
            # Looked at before what is there: what the thread appended before it ended is taken first.
            self._hungry, ended, fault = True, self._ended, self._fault
            if taken := [self._waiting.popleft() for _ in range(len(self._waiting))]:
                with self._room:
                    self._room.notify()
                return taken
            if fault is not None:
                raise fault
            if ended:
                return taken
            await self._there.wait()

    def _read(self) -> None:
        try:
            for record in self._records:
                if len(self._waiting) >= BATCH:
                    with self._room:
                        self._room.wait_for(lambda: len(self._waiting) < BATCH or self._ended)
                if self._ended:
                    return
                self._waiting.append(record)
                if self._hungry:
                    self._hungry = False
                    self._wake()
        except Exception as error:  # noqa: BLE001 - raised where records are taken
            self._fault = error
        with self._room:
            self._ended = True
        self._wake()

    def _wake(self) -> None:
        # The loop may be over before a line comes.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._there.set)
