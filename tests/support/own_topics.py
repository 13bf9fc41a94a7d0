"""Topics of a test's own on a real broker, and the real worker on them."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path

from headrace.client import connect
from headrace.kafka.settings import KafkaSettings
from headrace_load.processes import running, slowness
from tests.support.waiting import until

LIMIT_S = 60.0
# That broker waits half a session at each rebalance, so the session is short.
EMBEDDED = tuple(
    f"--set=kafka.{one}"
    for one in ("idempotent=false", "static_members=false", "session_timeout_ms=3000", "heartbeat_interval_ms=200")
)
numbers = itertools.count()


class OwnTopics:
    """Topics of this test's own on a broker, a client on them, and the worker command that answers there."""

    def __init__(self, bootstrap: str, model: Path | None, folder: Path, *, embedded: bool) -> None:
        self.prefix = f"e2e-{next(numbers)}-"
        self.log = folder / "worker.log"
        own = EMBEDDED if embedded else ()
        store = ("--set", f"trainer.store={folder}")
        self.at = (
            "--bootstrap",
            bootstrap,
            "--set",
            f"topics.prefix={self.prefix}",
            "--set",
            "admin.port=0",
            *store,
            *own,
        )
        # A group of this test's own: the embedded broker's groups can hang on members of the test before.
        answering = () if model is None else ("--model", str(model))
        self.command = (*self.at, "worker", *answering, "--group", f"{self.prefix}workers")
        self.kafka = KafkaSettings(bootstrap=bootstrap, idempotent=not embedded, static_members=not embedded)

    def apply(self) -> None:
        subprocess.run(
            [sys.executable, "-m", "headrace", *self.at, "topics", "apply"], check=True, timeout=LIMIT_S * slowness()
        )

    def client(self):
        names = {"requests": f"{self.prefix}classify.requests", "results": f"{self.prefix}classify.results"}
        return connect(kafka=self.kafka, **names)

    def worker(self, *more: str):
        return running(*self.command, *more, log=self.log)

    async def logged(self, pattern: str) -> re.Match[str]:
        return await until(lambda: re.search(pattern, self.log.read_text()) if self.log.exists() else None, LIMIT_S)
