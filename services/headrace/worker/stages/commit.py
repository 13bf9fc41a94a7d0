"""Commit: store as the group's offsets how far answers are acknowledged.

Commits serve the tools that show lag. A worker resumes from the answer log, so a failed commit is tried again later.
"""

from __future__ import annotations

from collections.abc import Collection

from headrace.core.clock import Clock
from headrace.core.resume import text_of, to_commit
from headrace.kafka.interface import Consumer, KafkaError, RebalancedError
from headrace.process.logs import Recurring
from headrace.registry.compacted_topics import WorkersWriter
from headrace.worker.metrics import WorkerMetrics
from headrace.worker.partitions.assignment import Assignment
from headrace.worker.partitions.partition import Partition


class Committer:
    """Commits every ``every`` seconds, and what is left when partitions are released."""

    def __init__(
        self, consumer: Consumer, workers: WorkersWriter, *, every: float, clock: Clock, metrics: WorkerMetrics
    ) -> None:
        self._consumer = consumer
        self._workers = workers
        self._every = every
        self._clock = clock
        self._metrics = metrics
        self._failures = Recurring("commit.failed")

    async def run(self, assignment: Assignment) -> None:
        while True:
            await self._clock.sleep(self._every)
            await self.commit(list(assignment.partitions.values()))

    async def commit(self, partitions: Collection[Partition]) -> None:
        """Commit the partitions that moved, within the lease. Raises only errors that trying again can't mend."""
        known = [partition for partition in partitions if partition.resumed]
        moved = {p: offset for p in known if (offset := _offset(p)) != p.committed}
        if not moved or self._consumer.lease_left_s() <= 0:
            return
        offsets = {partition.name: offset for partition, offset in moved.items()}
        texts = {p.name: text for p, offset in moved.items() if (text := text_of(offset, p.progress.last))}
        begun = self._clock.monotonic()
        try:
            await self._consumer.commit(offsets, metadata=texts)
        except RebalancedError:
            # The next owner reads the answer log instead.
            return
        except KafkaError as error:
            if not error.retriable:
                raise
            self._failures.event(error=str(error))
            return
        self._metrics.stage("commit", self._clock.monotonic() - begun)
        for partition, offset in moved.items():
            partition.committed = offset

    async def release(self, partitions: Collection[Partition]) -> None:
        """Take back the attempts at partitions that are given up cleanly, so that no request counts as a poison pill.

        Past the lease nothing is written: another owner may have replaced the attempts by its own.
        """
        if self._consumer.lease_left_s() <= 0:
            return
        tried = [
            (written, partition.attempts.evidence)
            for partition in partitions
            if (written := partition.attempts.written) is not None and partition.progress.position <= written.through
        ]
        if evidence := [found for _, found in tried if found is not None]:
            # Another process died over these requests, and it is not known yet which of them is the poison pill.
            await self._workers.publish(evidence)
        if attempts := [attempt for attempt, found in tried if found is None]:
            await self._workers.forget(attempts)
        await self.commit(partitions)


def _offset(partition: Partition) -> int:
    progress = partition.progress
    return to_commit(answered=progress.position, settled=partition.settled, written=progress.results_end > 0)
