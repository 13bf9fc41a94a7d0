"""`headrace` with a worker that breaks one rule, in place of `python -m headrace`; its model can be made slow.

$ python -m tests.support.broken_program DropsABatch worker --model FILE
"""

from __future__ import annotations

import sys

from headrace.cli import main
from headrace.worker import pipeline, worker
from load.chaos.broken import slowed
from tests.support import broken_workers

if __name__ == "__main__":
    worker.Worker = getattr(broken_workers, sys.argv.pop(1))
    pipeline.compute = slowed(pipeline.compute)
    main()
