"""Topics of their own on a real broker, where a few lines stand in for the worker."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import uuid
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from headrace.kafka.aio import AioKafkaCluster
from headrace.kafka.interface import Consumer, Outgoing, TopicExistsError, TopicPartition, TopicSpec
from headrace.kafka.settings import KafkaSettings
from headrace_schemas.codec import encode_result
from headrace_schemas.records import ClassifyResult, Status
from tests.support.waiting import within

PARTITIONS = 2
LIMIT_S = 40.0


class Site:
    """Topics of their own on a broker, and a task that answers."""

    def __init__(self, bootstrap: str, *, idempotent: bool) -> None:
        self.bootstrap = bootstrap
        self.prefix = f"t{uuid.uuid4().hex[:8]}."
        self.requests, self.results, self.dead_letters = (
            f"{self.prefix}classify.{name}" for name in ("requests", "results", "dead-letters")
        )
        self.idempotent = idempotent
        self.cluster = AioKafkaCluster(KafkaSettings(bootstrap=bootstrap, idempotent=idempotent))

    async def create_topics(self) -> None:
        admin = self.cluster.admin()
        await admin.start()
        for name in (self.requests, self.results, self.dead_letters):
            # The embedded broker makes a topic that a client asks for, and so may have been first.
            with contextlib.suppress(TopicExistsError):
                await admin.create_topic(TopicSpec(name=name, partitions=PARTITIONS))
        await admin.stop()

    async def answer(self) -> None:
        consumer, producer = self.cluster.consumer(), self.cluster.producer()
        await consumer.start()
        await producer.start()
        try:
            names = [TopicPartition(self.requests, number) for number in range(PARTITIONS)]
            consumer.assign(names)
            for name in names:
                consumer.seek(name, 0)
            while True:
                for name, records in (await consumer.fetch(max_records=500, timeout_s=0.2)).items():
                    answers = [_answer(record.offset, record.value or b"") for record in records]
                    await producer.send_batch(self.results, name.partition, answers)
        finally:
            await consumer.stop()
            await producer.stop()

    def toml(self) -> str:
        """A headrace.toml of this place."""
        kafka = f'bootstrap = "{self.bootstrap}"\nidempotent = {str(self.idempotent).lower()}\nstatic_members = false\n'
        return f'[kafka]\n{kafka}\n[topics]\nprefix = "{self.prefix}"\n'

    async def from_the_beginning(self, topic: str, partitions: int) -> Consumer:
        """A consumer of all of a topic; stop it."""
        consumer = self.cluster.consumer()
        await consumer.start()
        begins = await consumer.beginning_offsets([TopicPartition(topic, number) for number in range(partitions)])
        consumer.assign(begins)
        for name, offset in begins.items():
            consumer.seek(name, offset)
        return consumer

    @asynccontextmanager
    async def started(self, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """The command line while it runs, with a pipe to it and from it."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "headrace", "--bootstrap", self.bootstrap),
            *("--set", f"kafka.idempotent={self.idempotent}", "--set", f"topics.prefix={self.prefix}", *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run the command line; returns its exit code, stdout and stderr."""
        async with self.started(*arguments) as process, within(LIMIT_S, "the end of the command"):
            out, err = await process.communicate()
        return process.returncode or 0, out.decode(), err.decode()


def _answer(offset: int, value: bytes) -> Outgoing:
    result = ClassifyResult(
        offset=offset, after=offset - 1, crc=zlib.crc32(value), status=Status.OK, version="v1", label="sport", score=0.5
    )
    return Outgoing(encode_result(result))


@contextmanager
def answered(site: Site) -> Iterator[None]:
    """Around a test without an event loop: the topics are there, and a thread answers."""
    asyncio.run(site.create_topics())
    loop = asyncio.new_event_loop()
    answering = loop.create_task(site.answer())

    def run() -> None:
        loop.run_until_complete(asyncio.wait([answering]))
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(answering.cancel)
        thread.join()
