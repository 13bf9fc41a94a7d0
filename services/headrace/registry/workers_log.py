"""The topic classify.workers as state: who writes which results topic, and what workers are about to try.

Workers of a version before it wrote both to classify.models. They may still run beside those of today, which read
there what the older ones left or go on to write, and write nothing there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import ClassVar

import msgspec

from headrace.core.errors import raise_failed
from headrace.kafka.interface import Cluster
from headrace.registry.compacted_log import BatchSender, CompactedLog, CompactedWriter
from headrace.registry.models_log import ModelsLog
from headrace_schemas.codec import decode_workers_record, encode_workers_record
from headrace_schemas.errors import BadTypeError
from headrace_schemas.records import Attempt, MaxBatch, ResultsClaim, WorkersRecord
from headrace_schemas.topics import workers_key

UNKNOWN_MAX_BATCH = 4096
"""What a claim that names no ``max_batch`` stands for: the largest that the setting allowed when there were such."""

CREDIBLE_MAX_BATCH = 1 << 16
"""More than any version writes. A number past it would have workers read a whole results log at each resume."""


class WorkersLog(CompactedLog[WorkersRecord]):
    """Reads the topic; ``models`` is read beside it, by :meth:`refresh` too, and has to be started by its owner.

    To one results topic a claim that was copied from classify.models holds, otherwise the first in the log. Every
    process claims under a key of its own, so compaction can never keep a later claim and drop the first. An older
    worker's claim on classify.models holds where there is none here.
    """

    rubbish: ClassVar[str] = "workers.rubbish"
    followed: ClassVar[bool] = False

    def __init__(self, cluster: Cluster, topic: str, models: ModelsLog) -> None:
        super().__init__(cluster, topic)
        self._models = models
        # By key. A dict keeps the place of a key that is written again, so the first claim stays the first.
        self._claims: dict[bytes, ResultsClaim] = {}
        self._raised: dict[bytes, MaxBatch] = {}
        self._attempts: dict[bytes, Attempt] = {}

    async def refresh(self) -> None:
        """Take in every record of both topics up to the end offsets as they are now."""
        done = await asyncio.gather(super().refresh(), self._models.refresh(), return_exceptions=True)
        raise_failed(done)

    @property
    def results_topics(self) -> list[str]:
        """All results topics that are claimed, by name."""
        return sorted({claim.results for claim in self._claims.values()} | self._models.claims.keys())

    def claim_of(self, results: str) -> ResultsClaim | None:
        """The claim that holds."""
        made = self.made_here(results)
        return made[0] if made else self.left_by_older(results)

    def made_here(self, results: str) -> list[ResultsClaim]:
        """The claims on this topic: the one that holds, and behind it those that lost and were not taken back yet."""
        made = [claim for claim in self._claims.values() if claim.results == results]
        return sorted(made, key=lambda claim: claim.claimer is not None)  # stable

    def left_by_older(self, results: str) -> ResultsClaim | None:
        """The claim that an older worker has written to classify.models."""
        return self._models.claims.get(results)

    def max_batch_of(self, results: str) -> int:
        """How many requests any worker that writes ``results`` may answer in one batch."""
        claim = self.claim_of(results)
        claimed = None if claim is None else claim.max_batch
        if claimed is None or not 1 <= claimed <= CREDIBLE_MAX_BATCH:
            claimed = UNKNOWN_MAX_BATCH
        return max([claimed, *(raised.max_batch for raised in self._raised.values() if raised.results == results)])

    def start_of(self, results: str, partition: int) -> int:
        """Where the group that owns ``results`` began ``partition``; partitions added later begin at 0."""
        claim = self.claim_of(results)
        return claim.starts[partition] if claim is not None and partition < len(claim.starts) else 0

    def attempts_at(self, results: str, partition: int) -> list[Attempt]:
        """The attempts that stand: that of a worker of today, and that of an older one, whose deaths count for none.

        Who may write versions can write the latter too, and is not to have a request condemned.
        """
        of_today = [a for a in self._attempts.values() if (a.results, a.partition) == (results, partition)]
        older = self._models.attempts.get((results, partition))
        return of_today if older is None else [*of_today, msgspec.structs.replace(older, deaths=0)]

    def _decode(self, value: bytes | None) -> WorkersRecord | None:
        return decode_workers_record(value)

    def _key(self, record: WorkersRecord) -> bytes:
        return workers_key(record)

    def _keep(self, record: WorkersRecord) -> None:
        key = workers_key(record)
        match record:
            case ResultsClaim():
                self._claims[key] = record
            case MaxBatch():
                if not 1 <= record.max_batch <= CREDIBLE_MAX_BATCH:
                    raise BadTypeError("max_batch", f"is {record.max_batch}, at most {CREDIBLE_MAX_BATCH} is allowed")
                self._raised[key] = record
            case Attempt():
                self._attempts[key] = record

    def _forget(self, key: bytes | None) -> None:
        if key is not None:
            self._claims.pop(key, None)
            self._raised.pop(key, None)
            self._attempts.pop(key, None)


class WorkersWriter(CompactedWriter[WorkersRecord]):
    """Appends records of classify.workers."""

    def __init__(self, sender: BatchSender, topic: str) -> None:
        super().__init__(sender, topic, encode=encode_workers_record, key=workers_key)


async def copy_older_claims(log: WorkersLog, writer: WorkersWriter) -> Sequence[ResultsClaim]:
    """Copy each claim that an older worker has left on classify.models to where there is none; returns what was copied.

    May be interrupted and run again. Attempts are not copied: who made one takes it back where it is, and a copy that
    stayed behind would accuse requests over which nobody died. Raises a KafkaError.
    """
    await log.refresh()
    older = [claim for results in log.results_topics if (claim := log.left_by_older(results)) is not None]
    if copies := [claim for claim in older if not log.made_here(claim.results)]:
        await writer.publish(copies)
    return copies
