"""`headrace` on a disk that is full: no file can grow past some kilobytes, so nothing can be kept in a cache.

$ python -m load.chaos.programs.full_disk worker --model FILE
"""

from __future__ import annotations

import os
import resource
import signal
import tempfile

MOST_BYTES = 100_000
"""The log has to go somewhere. Compiled kernels are larger together."""

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as empty:
        os.environ["NUMBA_CACHE_DIR"] = empty
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that a write fails, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_BYTES, MOST_BYTES))
        from headrace.cli import main

        main()
