"""`headrace` whose model can be made slow: from SIGUSR1 to SIGUSR2 it answers a hundred requests a second.

$ python -m load.chaos.programs.slow_model worker --model FILE
"""

from __future__ import annotations

import functools
import signal
import time
from typing import Any

from headrace.cli import main
from headrace.worker import pipeline

PER_S = 100


def slowed(inner: Any) -> Any:
    """``inner``, which takes so long as well when it is told to."""
    slow = False

    def switch(number: int, _: object) -> None:
        nonlocal slow
        slow = number == signal.SIGUSR1

    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, switch)

    @functools.wraps(inner)
    def computed(batch: Any, *rest: Any, **named: Any) -> Any:
        if slow:
            time.sleep(batch.size / PER_S)
        return inner(batch, *rest, **named)

    return computed


if __name__ == "__main__":
    pipeline.compute = slowed(pipeline.compute)
    main()
