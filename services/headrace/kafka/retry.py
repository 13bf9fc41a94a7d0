"""Retry: the one loop that calls again after Kafka refused or did not answer.

A service waits until its broker is back: a training takes minutes, so a second without a leader must not end it.
Callers that must not wait for ever bound the loop by ``tries``, or by a time limit around it.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from headrace.core.clock import Clock
from headrace.kafka.interface import Appended, Cluster, Consumer, KafkaError, Outgoing, Producer, connected, passes
from headrace.process.logs import Overdue, event

RETRY_S = 1.0
SAID_AFTER_S = 10.0
"""A failure that lasts so long is logged. ``kafka/reach.py`` logs a broker that is away by itself."""

T = TypeVar("T")
Tell = Callable[[KafkaError, float], None]
"""Called with a failure, and with the seconds until the next try."""


def retriable(error: KafkaError) -> bool:
    """Whether the same call may succeed later."""
    return error.retriable


async def retried(
    call: Callable[[], Awaitable[T]],
    *,
    sleep: Callable[[float], Awaitable[None]],
    wait_s: float,
    longest_s: float | None = None,
    tries: int | None = None,
    mends: Callable[[KafkaError], bool] = retriable,
    tell: Tell = lambda *_: None,
) -> T:
    """Call until it succeeds, ``wait_s`` seconds apart; with ``longest_s`` the wait doubles up to it.

    Raises a KafkaError for which ``mends`` says that trying again is in vain, and after ``tries`` calls the last error,
    with a note of the number.
    """
    for count in itertools.count(1):
        try:
            return await call()
        except KafkaError as error:
            if not mends(error):
                raise
            if count == tries:
                error.add_note(f"It was tried {tries} times.")
                raise
            tell(error, wait_s)
        await sleep(wait_s)
        wait_s = wait_s if longest_s is None else min(2 * wait_s, longest_s)
    raise AssertionError("the count has no end")


async def patiently(call: Callable[[], Awaitable[T]], *, doing: str, clock: Clock) -> T:
    """Call until it succeeds, and log that it lasts. Raises the KafkaErrors that trying again can't mend."""
    since_s, patience = clock.monotonic(), Overdue(SAID_AFTER_S)

    def tell(error: KafkaError, _: float) -> None:
        if patience.due(clock.monotonic() - since_s):
            event("trainer.tries_again", level="warning", doing=doing, error=str(error))

    return await retried(call, sleep=clock.sleep, wait_s=RETRY_S, mends=passes, tell=tell)


async def started(make: Callable[[], Consumer], *, doing: str, clock: Clock) -> Consumer:
    """Return a connected consumer. A consumer whose start failed can't be started again, so each try makes a new
    one.
    """

    async def start() -> Consumer:
        consumer = make()
        await consumer.start()
        return consumer

    return await patiently(start, doing=doing, clock=clock)


class PatientSender:
    """Publishes rare records that must not get lost. Each call makes a producer of its own, so none outlives a failure.

    A record may be appended twice, so its key or place has to tell readers that it is the same record. ``confirm`` is
    called immediately before each try hands records over; an error that it raises ends the tries.
    """

    def __init__(self, cluster: Cluster, clock: Clock, confirm: Callable[[], None] = lambda: None) -> None:
        self._cluster = cluster
        self._clock = clock
        self._confirm = confirm

    async def send_batch(self, topic: str, partition: int, records: Sequence[Outgoing]) -> Appended:
        """Append ``records`` in order and wait for all of them. Raises as :func:`patiently` and ``confirm`` do."""
        return await self._send(topic, lambda producer: producer.send_batch(topic, partition, records))

    async def send_many(self, topic: str, records: Sequence[Outgoing]) -> list[Appended]:
        """Append ``records`` to the partitions of their keys. Raises as :meth:`send_batch`."""
        return await self._send(topic, lambda producer: producer.send_many(topic, records))

    async def _send(self, topic: str, hand_over: Callable[[Producer], Awaitable[T]]) -> T:
        async def send() -> T:
            async with connected(self._cluster.producer()) as producer:
                self._confirm()
                return await hand_over(producer)

        return await patiently(send, doing=f"publishing to {topic}", clock=self._clock)
