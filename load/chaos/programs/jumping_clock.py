"""`headrace` whose wall clock jumps: SIGUSR1 sets it an hour ahead, SIGUSR2 an hour back.

$ python -m load.chaos.programs.jumping_clock worker --model FILE
"""

from __future__ import annotations

import signal

from headrace.cli import main
from headrace.core.clock import SystemClock

HOUR_MS = 3_600_000

if __name__ == "__main__":
    honest, ahead_ms = SystemClock.now_ms, 0

    def jump(by_ms: int) -> None:
        """Set the clock, counted from the true time."""
        global ahead_ms  # noqa: PLW0603 - the one clock of this process
        ahead_ms = by_ms

    SystemClock.now_ms = lambda self: honest(self) + ahead_ms  # type: ignore[method-assign]
    signal.signal(signal.SIGUSR1, lambda *_: jump(HOUR_MS))
    signal.signal(signal.SIGUSR2, lambda *_: jump(-HOUR_MS))
    main()
