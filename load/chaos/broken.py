"""`headrace` with one thing wrong in its process, in place of `python -m headrace`.

    python -m load.chaos.broken NAME worker --model FILE

The names are those of :data:`PROGRAMS`. A function imports what it changes, so that another program does not load it.
"""

from __future__ import annotations

import atexit
import functools
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

DEADLY_TEXT = "a text that kills"
HELD_S = 8.0
HOUR_MS = 3_600_000
SLOW_PER_S = 100
LOOK_S = 0.1
MOST_BYTES = 100_000
"""Of a file on the full disk: the log has to go somewhere. Compiled kernels are larger together."""
PIECES = (1 << 20, 1 << 16, 1 << 12)
RENEWED_AFTER = 300
NEAR_THE_END = 2**31 - 1 - RENEWED_AFTER - 1200
"""A large batch behind the renewal comes to the last sequence number from here; past it Kafka refuses records."""


def command(name: str) -> tuple[str, ...]:
    """The command in place of `python -m headrace`."""
    return (sys.executable, "-m", "load.chaos.broken", name)


def deadly_text() -> None:
    """The model dies of one text: a batch that holds it ends the process by SIGKILL."""
    from headrace.model.backends.cpu import CpuBackend
    from headrace.process import lifecycle

    classify, supervise = CpuBackend.classify, lifecycle.supervise

    def classify_or_die(self: CpuBackend, texts: Sequence[bytes], ranking: int = 0) -> Any:
        if DEADLY_TEXT.encode() in texts:
            os.kill(os.getpid(), signal.SIGKILL)
        return classify(self, texts, ranking)

    def supervise_such(start: Callable[[int], Sequence[str]], *given: Any, **named: Any) -> Coroutine[Any, Any, int]:
        # Members are this program too.
        return supervise(lambda slot: _as_this(start(slot)), *given, **named)

    def _as_this(parts: Sequence[str]) -> list[str]:
        at = list(parts).index("headrace")
        return [*parts[:at], "load.chaos.broken", "deadly_text", *parts[at + 1 :]]

    CpuBackend.classify = classify_or_die  # type: ignore[method-assign]
    lifecycle.supervise = supervise_such  # type: ignore[assignment]


def breaking_model() -> None:
    """From SIGUSR1 to SIGUSR2 the model fails on every text."""
    from headrace.model.backends.cpu import CpuBackend

    classify, breaks = CpuBackend.classify, False

    def switch(number: int, _: object) -> None:
        nonlocal breaks
        breaks = number == signal.SIGUSR1

    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, switch)

    def classify_or_fail(self: CpuBackend, texts: Sequence[bytes], ranking: int = 0) -> Any:
        if breaks:
            raise RuntimeError("the model is broken")
        return classify(self, texts, ranking)

    CpuBackend.classify = classify_or_fail  # type: ignore[method-assign]


def faulty_store() -> None:
    """A store that can fail: PATH.fault says what is wrong with the file PATH.

    It holds `hangs` (nothing is read until it is gone), `half` (half of the promised bytes come) or `refuses`.
    """
    from headrace.model import local_files

    read_whole = local_files.read

    def read(where: Any, limit: int) -> bytes:
        file = Path(f"{where.uri.removeprefix('file://')}.fault")
        while (fault := file.read_text() if file.exists() else "") == "hangs":
            time.sleep(LOOK_S)
        if fault == "refuses":
            raise PermissionError("403: access denied")
        data = read_whole(where, limit)
        return data[: len(data) // 2] if fault == "half" else data

    local_files.read = read


def full_disk() -> None:
    """No file can grow past some kilobytes, so nothing can be kept in a cache."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["NUMBA_CACHE_DIR"] = folder
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that a write fails, as on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_BYTES, MOST_BYTES))


def held_loop() -> None:
    """At SIGUSR1 the event loop does nothing else for eight seconds, heartbeats included."""
    signal.signal(signal.SIGUSR1, lambda *_: time.sleep(HELD_S))


def jumping_clock() -> None:
    """SIGUSR1 sets the wall clock an hour ahead of the true time, SIGUSR2 an hour back."""
    from headrace.core.clock import SystemClock

    honest, ahead_ms = SystemClock.now_ms, 0

    def jump(number: int, _: object) -> None:
        nonlocal ahead_ms
        ahead_ms = HOUR_MS if number == signal.SIGUSR1 else -HOUR_MS

    SystemClock.now_ms = lambda self: honest(self) + ahead_ms  # type: ignore[method-assign]
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, jump)


def near_wrap() -> None:
    """Idempotent producers begin near the end of their sequence numbers, and are renewed that much sooner.

    Each connection of a producer is an event, `producer.connects`.
    """
    from aiokafka.producer.transaction_manager import TransactionManager

    from headrace.kafka.aio import producer
    from headrace.process.logs import event

    make = TransactionManager.__init__

    def near_the_end(self: TransactionManager, *given: Any) -> None:
        make(self, *given)
        self._sequence_numbers = defaultdict(lambda: NEAR_THE_END)
        event("producer.connects", sequence=NEAR_THE_END)

    TransactionManager.__init__ = near_the_end
    producer.SEQUENCE_LIMIT = RENEWED_AFTER


def no_memory() -> None:
    """At SIGUSR1 the process takes all memory that it may have, in ever smaller pieces, and gets no more."""
    kept: list[bytearray] = []

    def take_all(*_: object) -> None:
        # Of 0 Linux makes an exception.
        resource.setrlimit(resource.RLIMIT_DATA, (1, resource.RLIM_INFINITY))
        for size in PIECES:
            try:
                while True:
                    kept.append(bytearray(size))
            except MemoryError:
                continue  # smaller ones may still fit

    signal.signal(signal.SIGUSR1, take_all)


def slow_model() -> None:
    """From SIGUSR1 to SIGUSR2 the model answers a hundred requests a second."""
    from headrace.worker import pipeline

    pipeline.compute = slowed(pipeline.compute)


def slowed(inner: Any) -> Any:
    """``inner``, slow from SIGUSR1 to SIGUSR2."""
    slow = False

    def switch(number: int, _: object) -> None:
        nonlocal slow
        slow = number == signal.SIGUSR1

    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, switch)

    @functools.wraps(inner)
    def computed(batch: Any, *rest: Any, **named: Any) -> Any:
        if slow:
            time.sleep(batch.size / SLOW_PER_S)
        return inner(batch, *rest, **named)

    return computed


PROGRAMS = {
    broken.__name__: broken
    for broken in (
        *(breaking_model, deadly_text, faulty_store, full_disk),
        *(held_loop, jumping_clock, near_wrap, no_memory, slow_model),
    )
}


if __name__ == "__main__":
    PROGRAMS[sys.argv.pop(1)]()
    from headrace.cli import main

    main()
