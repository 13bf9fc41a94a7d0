"""`headrace` that runs out of memory: at SIGUSR1 it takes all that it may have, and gets no more.

$ python -m load.chaos.programs.no_memory worker --model FILE
"""

from __future__ import annotations

import resource
import signal

from headrace.cli import main

PIECES = (1 << 20, 1 << 16, 1 << 12)


def take_all(kept: list[bytearray]) -> None:
    """Take what is free in the process, in ever smaller pieces. More than it has it can't get any more."""
    # Of 0 Linux makes an exception.
    resource.setrlimit(resource.RLIMIT_DATA, (1, resource.RLIM_INFINITY))
    for size in PIECES:
        try:
            while True:
                kept.append(bytearray(size))
        except MemoryError:
            continue  # smaller ones may still fit


if __name__ == "__main__":
    memory: list[bytearray] = []
    signal.signal(signal.SIGUSR1, lambda *_: take_all(memory))
    main()
