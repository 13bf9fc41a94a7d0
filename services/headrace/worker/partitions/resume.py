"""Where a partition goes on: the claim on its results topic, and the end of its answer log.

A results topic belongs to one (requests topic, group). The claim says where that group began, and how large its batches
may be. Of each partition the facts are gathered here, outside the rebalance callbacks, and :mod:`headrace.core.resume`
decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence

from headrace.core import poison_pills
from headrace.core.clock import Clock
from headrace.core.errors import UserError
from headrace.core.fields import parse_start
from headrace.core.resume import Facts, Refusal, Resume, decide, last_answered, last_of, look_back
from headrace.kafka.interface import Consumer, TopicPartition, crc_of
from headrace.kafka.range_reader import last_answers, offsets_of, read_ranges
from headrace.process.lifecycle import EXIT_REFUSED
from headrace.process.logs import event
from headrace.registry.compacted_topics import WorkersLog, WorkersWriter, copy_older_claims
from headrace.worker.metrics import WorkerMetrics
from headrace.worker.partitions.partition import Partition
from headrace_schemas.records import Attempt, ResultsClaim


class RefusedError(UserError):
    """Going on would break a rule of the answer log. The message says why, and what to do."""

    exit_code = EXIT_REFUSED


class Resumer:
    """``reader`` belongs to no group and is used by one resume at a time; ``member`` is the group's consumer."""

    def __init__(
        self,
        *,
        reader: Consumer,
        member: Consumer,
        workers: WorkersLog,
        results: str,
        dead_letters: str,
        max_batch: int,
        process: str,
        clock: Clock,
        metrics: WorkerMetrics,
    ) -> None:
        self._reader = reader
        self._member = member
        self._workers = workers
        self._results = results
        self._dead_letters = dead_letters
        self._max_batch = max_batch
        self._process = process
        self._clock = clock
        self._metrics = metrics
        self._one_at_a_time = asyncio.Lock()

    async def resume(self, partitions: Sequence[Partition]) -> None:
        """Begin each of ``partitions`` at its position, with a few calls for all of them.

        Another tool may have added partitions to the requests topic alone. A partition that the results or the
        dead-letters topic lacks does not begin; ``unanswerable`` says why. Raises RefusedError when a person has to
        decide, and a KafkaError.
        """
        async with self._one_at_a_time:
            written = (self._results, self._dead_letters)
            there = {topic: await self._reader.partitions_of(topic) for topic in written}
            for partition in partitions:
                partition.unanswerable = _unanswerable(partition.name, there)
            alive = {p.name: p for p in partitions if p.alive and p.unanswerable is None}
            if not alive:
                return
            facts = await self._facts(list(alive))
            for name, partition in alive.items():
                if partition.alive:
                    self._compare(partition, facts[name].results_end)
                    self._begin(partition, decide(facts[name]))

    def _compare(self, partition: Partition, end: int) -> None:
        """Say so if acknowledged answers are gone: after an unclean election, or in a topic that was made anew."""
        if end < partition.progress.results_end:
            event(
                "results.cut",
                level="error",
                partition=partition.name.partition,
                end=end,
                was=partition.progress.results_end,
                why="acknowledged answers are gone (an unclean election, or the topic was made anew): their requests "
                "are answered again",
            )
        partition.progress.found(end)

    def _begin(self, partition: Partition, decision: Resume | Refusal) -> None:
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
        self._plan_attempts(partition, decision.position)
        partition.begin(decision.position, decision.after, decision.lost)
        event("partition.resumed", partition=number, position=decision.position)

    def _plan_attempts(self, partition: Partition, position: int) -> None:
        number = partition.name.partition
        fresh = Attempt(
            results=self._results,
            partition=number,
            offset=position,
            through=position + self._max_batch - 1,
            process=self._process,
        )
        trial = poison_pills.trial(poison_pills.telling(self._standing(partition), position), fresh)
        partition.attempts.plan(trial)
        if trial.alone_through >= 0:
            event("records.suspected", level="warning", partition=number, first=position, deaths=trial.attempt.deaths)

    def _standing(self, partition: Partition) -> list[Attempt]:
        """The attempts at the partition that may come from a process that died."""
        max_batch = self._workers.max_batch_of(self._results)
        standing = []
        for attempt in self._workers.attempts_at(self._results, partition.name.partition):
            # Our own attempt replaced the evidence in the log.
            found = partition.attempts.evidence if attempt.process == self._process else attempt
            if found is None:
                continue
            if poison_pills.credible(found, max_batch):
                standing.append(found)
            else:
                why = "no worker of this group can have written it"
                event("attempt.ignored", level="warning", partition=found.partition, process=found.process, why=why)
        return standing

    async def _facts(self, requests: Sequence[TopicPartition]) -> dict[TopicPartition, Facts]:
        results = {name: TopicPartition(self._results, name.partition) for name in requests}
        both = (*requests, *results.values())
        starts = await self._reader.beginning_offsets(both)
        ends = await self._reader.end_offsets(both)
        # After the ends are known: a worker with larger batches writes only once the claim allows them, so the claim
        # that is read now covers all that was written before these ends.
        await self._workers.refresh()
        logs = {name: (starts[name], ends[name]) for name in results.values()}
        tails = await last_answers(self._reader, logs, look_back(self._workers.max_batch_of(self._results)))
        last = {name: last_answered(tails[results[name]]) for name in requests}
        crcs = await self._crcs(
            {
                name: answered.offset
                for name, answered in last.items()
                if answered is not None and starts[name] <= answered.offset < ends[name]
            }
        )
        committed = await self._member.committed(requests)
        return {
            name: Facts(
                tail=tails[results[name]],
                results_end=ends[results[name]],
                requests_start=starts[name],
                requests_end=ends[name],
                committed=None if (commit := committed.get(name)) is None else commit.offset,
                committed_last=None if commit is None else last_of(commit.offset, commit.metadata),
                start=self._workers.start_of(self._results, name.partition),
                crc_at_last=crcs.get(name),
            )
            for name in requests
        }

    async def _crcs(self, offsets: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """The CRC-32 of the request at each offset that still holds one."""
        ends = {name: offset + 1 for name, offset in offsets.items()}
        return {
            TopicPartition(record.topic, record.partition): crc_of(record)
            async for records in read_ranges(self._reader, offsets, ends)
            for record in records
        }


def _unanswerable(name: TopicPartition, there: Mapping[str, Collection[int]]) -> str | None:
    """Why the requests of ``name`` can't be answered, by the partition numbers of the topics written to."""
    lacking = [topic for topic, numbers in there.items() if name.partition not in numbers]
    if not lacking:
        return None
    return (
        f"{name.topic} has a partition {name.partition} that is missing in {' and '.join(lacking)}, so its requests "
        "can't be answered; `headrace topics apply --grow` adds it"
    )


async def claim(
    log: WorkersLog,
    writer: WorkersWriter,
    reader: Consumer,
    *,
    requests: str,
    results: str,
    group: str,
    start_from: str,
    max_batch: int,
    claimer: str,
    clock: Clock,
) -> ResultsClaim:
    """Return the claim that holds. It is made now if there is none.

    The first claim in the log holds, so workers that start together agree. Each claims under the key of its own
    ``claimer``; any worker that sees claims that lost takes them back. A claim of an older worker stands on
    classify.models, perhaps written at the same time: it is copied, and holds.

    Raises RefusedError when another group or requests topic owns ``results``, or when ``max_batch`` is larger than the
    claim allows.
    """
    await log.refresh()
    if log.claim_of(results) is None:
        wanted = ResultsClaim(
            results=results,
            requests=requests,
            group=group,
            claimed_at_ms=clock.now_ms(),
            starts=await _starts(reader, requests, start_from),
            max_batch=max_batch,
            claimer=claimer,
        )
        await writer.publish([wanted])
        await log.refresh()
        if (older := log.left_by_older(results)) is not None:
            await writer.publish([older])
            await log.refresh()
    elif not log.made_here(results):
        await copy_older_claims(log, writer)
        await log.refresh()
    held, *lost = log.made_here(results)
    if lost:
        await writer.forget(lost)
    if (held.requests, held.group) != (requests, group):
        raise RefusedError(
            f"{results} holds the answers of group {held.group!r} to {held.requests!r}; group {group!r} on "
            f"{requests!r} would mix its own into them. Give this group a results topic of its own (--results)."
        )
    if max_batch > (allowed := log.max_batch_of(results)):
        raise RefusedError(
            f"worker.max_batch is {max_batch}, but by the claim on {results} its workers answer at most {allowed} "
            "requests in one batch, and whoever takes over a partition looks back by that. Raise it first with "
            f"`headrace topics claim --max-batch {max_batch}`, or give this worker at most {allowed}."
        )
    return held


async def _starts(reader: Consumer, requests: str, start_from: str) -> tuple[int, ...]:
    partitions = [TopicPartition(requests, number) for number in sorted(await reader.partitions_of(requests))]
    if not partitions:
        raise RefusedError(f"There is no topic {requests}. Create headrace's topics with `headrace topics apply`.")
    begin = await offsets_of(reader, partitions, parse_start(start_from))
    return tuple(begin[partition] for partition in partitions)
