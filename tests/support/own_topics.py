"""Topics of a test's own on a real broker, and the real worker on them."""

from __future__ import annotations

import asyncio
import itertools
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from headrace.client import connect
from headrace.commands.topics import wanted_topics
from headrace.config import TopicsSettings
from headrace.kafka.aio import AioKafkaCluster
from headrace.kafka.interface import connected
from headrace.kafka.settings import KafkaSettings
from headrace.kafka.topics import carry_out, look
from headrace_load.processes import running
from tests.support.waiting import until, within

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
        """Create the topics as `headrace topics apply` does, which takes a second more to start."""
        # On a thread, because the caller's may run an event loop.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, self._create()).result()

    async def _create(self) -> None:
        wanted = wanted_topics(TopicsSettings(prefix=self.prefix))
        async with within(LIMIT_S, "the topics' creation"), connected(AioKafkaCluster(self.kafka).admin()) as admin:
            await carry_out(admin, await look(admin, wanted), grow=False)

    def client(self):
        names = {"requests": f"{self.prefix}classify.requests", "results": f"{self.prefix}classify.results"}
        return connect(kafka=self.kafka, **names)

    def worker(self, *more: str):
        return running(*self.command, *more, log=self.log)

    async def logged(self, pattern: str) -> re.Match[str]:
        return await until(lambda: re.search(pattern, self.log.read_text()) if self.log.exists() else None, LIMIT_S)
