"""Claim: a results topic belongs to one (requests topic, group). The claim says where that group began."""

from __future__ import annotations

from headrace.core.clock import Clock
from headrace.core.fields import parse_start
from headrace.kafka.interface import Consumer, TopicPartition
from headrace.kafka.range_reader import offsets_of
from headrace.registry.compacted_topics import WorkersLog, WorkersWriter, copy_older_claims
from headrace.worker.partitions.resume import RefusedError
from headrace_schemas.records import ResultsClaim


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
