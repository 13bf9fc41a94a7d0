"""Resume: find where to go on in a partition, from the end of its answer log.

Gathers the facts and lets :mod:`headrace.core.resume` decide. Runs outside the rebalance callbacks.
"""

from __future__ import annotations

import asyncio
import zlib

from headrace.core import suspects
from headrace.core.clock import Clock
from headrace.core.errors import UserError
from headrace.core.restarts import EXIT_REFUSED
from headrace.core.resume import Answered, Facts, Refusal, decide, last_answered, look_back
from headrace.inference.partition import Partition
from headrace.kafka.interface import Consumer, Record, TopicPartition
from headrace.logs import event
from headrace.metrics import WorkerMetrics
from headrace.registry.models_log import ModelsLog
from headrace_schemas.codec import decode_result
from headrace_schemas.errors import WireError
from headrace_schemas.headers import content_type
from headrace_schemas.records import Attempt, ClassifyResult

QUIET_S = 3.0
"""Without a record for so long, what is left before the end offset is no record (a transaction's marker)."""


class RefusedError(UserError):
    """Going on would break the promise of the answer log; the message says why and what to do."""

    exit_code = EXIT_REFUSED


class Resumer:
    """``reader`` belongs to no group and is used by one resume at a time; ``member`` is the group's consumer."""

    def __init__(
        self,
        *,
        reader: Consumer,
        member: Consumer,
        models: ModelsLog,
        results: str,
        max_batch: int,
        process: str,
        clock: Clock,
        metrics: WorkerMetrics,
    ) -> None:
        self._reader = reader
        self._member = member
        self._models = models
        self._results = results
        self._max_batch = max_batch
        self._process = process
        self._clock = clock
        self._metrics = metrics
        self._one_at_a_time = asyncio.Lock()

    async def resume(self, partition: Partition) -> None:
        """Begin ``partition`` at its position. Raises RefusedError when a person has to decide."""
        async with self._one_at_a_time:
            if not partition.alive:
                return
            decision = decide(await self._facts(partition.name))
            await self._models.refresh()
            if not partition.alive:
                return
        number = partition.name.partition
        if isinstance(decision, Refusal):
            raise RefusedError(f"{partition.name.topic}[{number}]: {decision.reason}.")
        if decision.lost is not None:
            self._metrics.lost(decision.lost.last - decision.lost.first + 1)
            event(
                "requests.lost",
                level="error",
                partition=number,
                first=decision.lost.first,
                last=decision.lost.last,
                why="deleted by the topic's retention before they were answered",
            )
        self._try(partition, decision.position)
        partition.begin(decision.position, decision.after, decision.lost)
        event("partition.resumed", partition=number, position=decision.position)

    def _try(self, partition: Partition, position: int) -> None:
        number = partition.name.partition
        fresh = Attempt(
            results=self._results,
            partition=number,
            offset=position,
            through=position + self._max_batch - 1,
            process=self._process,
        )
        trial = suspects.trial(self._models.attempts.get((self._results, number)), fresh)
        partition.attempt = trial.attempt
        partition.alone_through = trial.alone_through
        partition.condemned = position if trial.condemned else None
        if trial.alone_through >= 0:
            event("records.suspected", level="warning", partition=number, first=position, deaths=trial.attempt.deaths)

    async def _facts(self, requests: TopicPartition) -> Facts:
        results = TopicPartition(self._results, requests.partition)
        if requests.partition not in await self._reader.partitions_of(self._results):
            raise RefusedError(
                f"{self._results} has no partition {requests.partition} though {requests.topic} has: "
                f"add partitions to {self._results} first (`headrace topics apply`)."
            )
        both = (requests, results)
        starts = await self._reader.beginning_offsets(both)
        ends = await self._reader.end_offsets(both)
        tail = await self._tail(results, starts[results], ends[results])
        last = last_answered(tail)
        crc = None
        if last is not None and starts[requests] <= last.offset < ends[requests]:
            crc = await self._crc(requests, last.offset, ends[requests])
        return Facts(
            tail=tail,
            results_end=ends[results],
            requests_start=starts[requests],
            requests_end=ends[requests],
            committed=await self._member.committed(requests),
            start=self._models.start_of(self._results, requests.partition),
            crc_at_last=crc,
        )

    async def _tail(self, results: TopicPartition, start: int, end: int) -> tuple[Answered, ...]:
        wanted = look_back(self._max_batch)
        reach = wanted
        while True:
            first = max(start, end - reach)
            answers = [
                Answered(answer.offset, answer.crc)
                for record in await self._read(results, first, end)
                if (answer := _answer(record)) is not None
            ]
            if first == start or len(answers) >= wanted:
                return tuple(answers[-wanted:])
            reach *= 2

    async def _crc(self, requests: TopicPartition, offset: int, end: int) -> int | None:
        records = await self._read(requests, offset, min(offset + 1, end))
        at = [record for record in records if record.offset == offset]
        return zlib.crc32(at[0].value or b"") if at else None

    async def _read(self, name: TopicPartition, first: int, end: int) -> list[Record]:
        """Every record of ``name`` in [first, end)."""
        records: list[Record] = []
        if first >= end:
            return records
        self._reader.assign([name])
        self._reader.seek(name, first)
        quiet_since = self._clock.monotonic()
        while await self._reader.position(name) < end:
            chunk = (await self._reader.fetch(max_records=end - first, timeout_s=QUIET_S / 4)).get(name, ())
            if chunk:
                quiet_since = self._clock.monotonic()
                records.extend(record for record in chunk if record.offset < end)
                if chunk[-1].offset >= end - 1:
                    break
            elif self._clock.monotonic() - quiet_since > QUIET_S:
                # Reading too little resumes too early, which only repeats answers.
                event("log.ends_in_no_record", topic=name.topic, partition=name.partition, end=end)
                break
        return records


def _answer(record: Record) -> ClassifyResult | None:
    try:
        return decode_result(record.value, content_type(record.headers))
    except WireError:
        # Somebody else wrote here; the claim keeps workers out, and readers say it of every such record.
        return None
