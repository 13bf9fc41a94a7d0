"""`headrace` whose event loop can be held: at SIGUSR1 it does nothing else for eight seconds, heartbeats included.

$ python -m load.chaos.programs.held_loop worker --model FILE
"""

from __future__ import annotations

import signal
import time

from headrace.cli import main

HELD_S = 8.0

if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, lambda *_: time.sleep(HELD_S))
    main()
