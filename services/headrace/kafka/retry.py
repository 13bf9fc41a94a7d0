"""Waiting a broker's absence out: a training takes minutes, so a second without a leader must not end it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from headrace.core.clock import Clock
from headrace.kafka.interface import Appended, Cluster, Consumer, KafkaError, Outgoing, passes
from headrace.process.logs import Overdue, event

RETRY_S = 1.0
SAID_AFTER_S = 10.0
"""What goes on for so long is worth a line; a broker that is away is said by itself (``kafka/reach.py``)."""

T = TypeVar("T")


async def patiently(call: Callable[[], Awaitable[T]], *, doing: str, clock: Clock) -> T:
    """Call until it succeeds. Raises the KafkaErrors that trying again can't mend."""
    since_s, patience = clock.monotonic(), Overdue(SAID_AFTER_S)
    while True:
        try:
            return await call()
        except KafkaError as error:
            if not passes(error):
                raise
            if patience.due(clock.monotonic() - since_s):
                event("trainer.tries_again", level="warning", doing=doing, error=str(error))
        await clock.sleep(RETRY_S)


async def started(make: Callable[[], Consumer], *, doing: str, clock: Clock) -> Consumer:
    """A consumer that is connected. One whose start failed can't be started again, so each try makes its own."""

    async def start() -> Consumer:
        consumer = make()
        await consumer.start()
        return consumer

    return await patiently(start, doing=doing, clock=clock)


class PatientSender:
    """Publishes what must not get lost, each time by a producer of its own: it is rare, and none outlives a failure.

    A record may be appended twice, so it needs a key or a place that makes it the same record to its readers.
    ``confirm`` is called immediately before each try hands records over; what it raises ends them all.
    """

    def __init__(self, cluster: Cluster, clock: Clock, confirm: Callable[[], None] = lambda: None) -> None:
        self._cluster = cluster
        self._clock = clock
        self._confirm = confirm

    async def send_batch(self, topic: str, partition: int, records: Sequence[Outgoing]) -> Appended:
        """Append ``records`` in order and wait for all of them.

        Raises as :func:`patiently` does, and what ``confirm`` raises.
        """

        async def send() -> Appended:
            producer = self._cluster.producer()
            try:
                await producer.start()
                self._confirm()
                return await producer.send_batch(topic, partition, records)
            finally:
                await producer.stop()

        return await patiently(send, doing=f"publishing to {topic}", clock=self._clock)
