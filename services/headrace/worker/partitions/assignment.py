"""Which partitions this worker owns: each is assigned, resumed and ended.

The worker owns them while its lease lasts (``core/lease.py``). A coordinator that can't be reached gives them to others
without a revocation, so the end of the lease ends them too.

``assigned`` replaces the set of partitions, and a task resumes them. ``revoked`` waits for sends and the release, both
within one time limit, and never for a fetch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence

from headrace.kafka.group_assignment import GroupAssignment
from headrace.kafka.interface import Consumer, KafkaError, TopicPartition
from headrace.process.logs import Recurring, event
from headrace.worker.metrics import WorkerMetrics
from headrace.worker.partitions.partition import Partition

RETRY_S = 0.2
MENDED_LOOK_S = 5.0
"""How often a partition that can't be answered is looked at again."""
LEASE_LOOK_S = 0.1


class Assignment(GroupAssignment):
    """The rebalance listener. ``resume`` finds the positions of partitions and begins them; ``release`` tells the log
    that partitions were given up cleanly, and commits.
    """

    def __init__(
        self,
        consumer: Consumer,
        *,
        resume: Callable[[Sequence[Partition]], Awaitable[None]],
        release: Callable[[Collection[Partition]], Awaitable[None]],
        sleep: Callable[[float], Awaitable[None]],
        revoke_timeout: float,
        metrics: WorkerMetrics,
    ) -> None:
        super().__init__(consumer)
        self._resume = resume
        self._release = release
        self._sleep = sleep
        self._revoke_timeout = revoke_timeout
        self._metrics = metrics
        self._lost = Recurring("lease.lost")
        self._failed = Recurring("resume.failed")
        self._holds = False
        """Whether the group gave this member partitions, perhaps none, and the lease has not ended since."""
        self._lapsed = False
        """Whether the lease ended, and the group has revoked and assigned nothing since."""
        self.partitions: dict[TopicPartition, Partition] = {}
        self.joined = False
        """Whether the group has given this member partitions, perhaps none."""
        self.batch_due = asyncio.Event()
        """Set when a batch may be cut: requests came, or a partition has fewer slices in work."""
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Fails when a partition can't be resumed and a person is needed."""

    @property
    def unready(self) -> str | None:
        """Why some requests of this worker's partitions are not answered now, in words; None when all are."""
        if not self.joined:
            return "not in the group yet"
        if self._consumer.lease_left_s() <= 0:
            return "the group was not heard for a session's length: its coordinator is out of reach, or it rebalances"
        if unanswerable := self._unanswerable():
            return "; ".join(partition.unanswerable or "" for partition in unanswerable)
        if not all(partition.resumed for partition in self.partitions.values()):
            return "partitions are being resumed"
        return None

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        if self._stopped:
            return
        self._begin(partitions)
        self.joined = self._holds = True
        self._lapsed = False
        self._metrics.assigned(len(self.partitions))
        event("partitions.assigned", partitions=sorted(name.partition for name in partitions))
        if not self.partitions:
            why = "the other workers of its group have all partitions; this one takes over when one of them ends"
            event("worker.stands_by", why=why)

    async def revoked(self, partitions: Collection[TopicPartition]) -> None:
        self._holds = self._lapsed = False
        ended = [self.partitions.pop(name) for name in partitions if name in self.partitions]
        self._metrics.unanswerable(len(self._unanswerable()))
        await self.end(ended)
        if ended:
            event("partitions.revoked", partitions=sorted(partition.name.partition for partition in ended))

    def leased(self) -> bool:
        """Whether answers may be handed over now. When the lease has ended, another worker may own the partitions: they
        all end here at once, and this member joins the group again.
        """
        if self._consumer.lease_left_s() > 0:
            return True
        if self._holds:
            self._holds, self._lapsed = False, True
            ended = list(self.partitions.values())
            self.partitions.clear()
            for partition in ended:
                partition.end()
            self._consumer.pause([partition.name for partition in ended])
            self._metrics.lease_lost()
            self._lost.event(
                partitions=sorted(partition.name.partition for partition in ended),
                why="the group has not answered a heartbeat for a session's length, or takes this worker for no member "
                "any more, so others may own these partitions by now: joining afresh",
            )
            self._beside(self._join_afresh(ended), "join afresh")
        return False

    async def watch_lease(self) -> None:
        """Notice the end of the lease also while nothing is handed over."""
        while True:
            self.leased()
            await self._sleep(max(self._consumer.lease_left_s(), LEASE_LOOK_S))

    async def _join_afresh(self, ended: Collection[Partition]) -> None:
        await self.end(ended)
        if self._lapsed:
            self._consumer.rejoin()

    async def end(self, ended: Collection[Partition]) -> None:
        """End these, wait for the answers and attempts that were handed over, and release the rest.

        The group waits, so all of it takes at most ``revoke_timeout``. Half of that is left to the release: without it
        the next owner concludes that this process died over the requests that it tried.
        """
        for partition in ended:
            partition.end()
        handed_over: list[asyncio.Future[None]] = []
        for partition in ended:
            under_way = partition.in_flight.sending, partition.attempts.writing
            handed_over += [one for one in under_way if one is not None]

        async def release() -> None:
            if handed_over:
                await asyncio.wait(handed_over, timeout=self._revoke_timeout / 2)
            await self._release(ended)

        late = f"not released within worker.revoke_timeout ({self._revoke_timeout:g} s)"
        await self._released(release(), self._revoke_timeout, late)

    def restart(self, name: TopicPartition, reason: str) -> None:
        """End the state of a partition that this worker still owns, and resume it from the answer log."""
        old = self.partitions.get(name)
        if old is None:
            return
        old.end()
        event("partition.resumes", level="warning", partition=name.partition, why=reason)
        sending = old.in_flight.sending
        self._begin([name], [] if sending is None else [sending])

    def _begin(self, names: Collection[TopicPartition], sending: Collection[asyncio.Task[None]] = ()) -> None:
        begun = [Partition(name) for name in sorted(names)]
        for partition in begun:
            if (old := self.partitions.get(partition.name)) is not None:
                old.end()
                partition.take_over(old)
        self.partitions.update((partition.name, partition) for partition in begun)
        self._consumer.pause(names)
        self._beside(self._resume_until_known(begun, sending), "resume")

    async def _resume_until_known(
        self, partitions: Sequence[Partition], sending: Collection[asyncio.Task[None]]
    ) -> None:
        if sending:
            # Not needed for correctness: a send that is acknowledged meanwhile needs no repeat.
            await asyncio.wait(sending, timeout=self._revoke_timeout)
        told: list[str | None] = []
        while missing := [partition for partition in partitions if partition.alive and not partition.resumed]:
            try:
                await self._resume(missing)
            except KafkaError as error:
                if not error.retriable:
                    raise
                self._failed.event(error=str(error))
                await self._sleep(RETRY_S)
                continue
            known = [partition for partition in missing if partition.alive and partition.resumed]
            self._fetch_from({partition.name: partition.queue.expected or 0 for partition in known})
            self._metrics.unanswerable(len(self._unanswerable()))
            if left := [partition for partition in missing if partition.alive and partition.unanswerable is not None]:
                if (whys := [partition.unanswerable for partition in left]) != told:
                    numbers = [partition.name.partition for partition in left]
                    event("partitions.unanswerable", level="error", partitions=numbers, why=whys[0])
                    told = whys
                await self._sleep(MENDED_LOOK_S)

    def _unanswerable(self) -> list[Partition]:
        return [partition for partition in self.partitions.values() if partition.unanswerable is not None]

    def _broken(self, error: BaseException) -> None:
        if not self.broken.done():
            self.broken.set_exception(error)

    async def stop(self) -> None:
        """Cancel what is still being resumed, end every partition, and take none any more."""
        self._cease()
        ended = list(self.partitions.values())
        self.partitions.clear()
        await self.end(ended)
