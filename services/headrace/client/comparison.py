"""Two answer logs of the same requests, joined by partition and offset.

Both logs are in the order of the requests, so each partition is one merge of two sorted streams, and memory holds a
chunk of each, however long they are. The comparison begins where both logs have begun and ends where the shorter one
ends.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import msgspec

from headrace.client.reading import LOOK_BACK, begins_after_retention, read_answer, readers_at
from headrace.core.agreement import Agreement, Tally
from headrace.core.answer_log import Place
from headrace.core.errors import UserError
from headrace.core.fields import Start
from headrace.kafka.interface import Cluster, OffsetOutOfRangeError, TopicPartition, UnknownTopicError, connected
from headrace.kafka.range_reader import offsets_of, read_ranges
from headrace.registry.compacted_topics import WorkersLog
from headrace_schemas.records import ClassifyResult


class Side(msgspec.Struct, frozen=True):
    """One of the two logs: a results topic, and the version whose answers on it count."""

    results: str
    version: str


class ResultsTopicError(UserError):
    """It is not clear where the answers to compare with are."""


def other_results(log: WorkersLog, requests: str, results: str) -> str:
    """The one topic besides ``results`` that holds answers to ``requests``. Raises ResultsTopicError otherwise."""
    claims = [claim for topic in log.results_topics if (claim := log.claim_of(topic)) is not None]
    others = [claim.results for claim in claims if claim.requests == requests and claim.results != results]
    if len(others) == 1:
        return others[0]
    known = ", ".join(others) or "none"
    raise ResultsTopicError(
        f"Which topic holds the answers to compare {results} with? Name it by --results-b TOPIC (known: {known}). "
        "A second group answers into its own topic: headrace worker --group G --model ALIAS --results TOPIC."
    )


async def compare_logs(cluster: Cluster, a: Side, b: Side, *, last: int, examples: int) -> Agreement:
    """Compare both logs as they are now: at most about the ``last`` answers of each, spread over its partitions.

    Raises UnknownTopicError when a topic is not there, and a KafkaError that says what could not be read.
    """
    tally = Tally(a.version, b.version, examples)
    ours, theirs = await _ranges(cluster, a.results, last), await _ranges(cluster, b.results, last)
    for partition in sorted(ours.keys() & theirs.keys()):
        streams = [
            _answers(cluster, TopicPartition(side.results, partition), *ranges[partition])
            for side, ranges in ((a, ours), (b, theirs))
        ]
        try:
            await _merge(tally, partition, *streams)
        finally:
            for stream in streams:
                await stream.aclose()
    return tally.agreement()


async def last_results(
    cluster: Cluster, topic: str, *, last: int, start: Start = "earliest"
) -> dict[tuple[int, int], ClassifyResult]:
    """The answers on ``topic`` since ``start``, without repeats, by partition and offset of their requests.

    They are at most about the ``last`` answers, spread over the partitions, with the first two labels of each ranking.
    Raises UnknownTopicError when the topic is not there, and a KafkaError.
    """
    found: dict[tuple[int, int], ClassifyResult] = {}
    for partition, (begin, end) in sorted((await _ranges(cluster, topic, last, start)).items()):
        async with aclosing(_answers(cluster, TopicPartition(topic, partition), begin, end)) as answers:
            async for answer in answers:
                found[partition, answer.offset] = msgspec.structs.replace(answer, ranking=answer.ranking[:2])
    return found


async def _ranges(cluster: Cluster, topic: str, last: int, start: Start = "earliest") -> dict[int, tuple[int, int]]:
    """Where to begin, no sooner than ``start``, and to end (not included) in each partition, for about the ``last``
    answers of all.
    """
    async with connected(cluster.consumer()) as consumer:
        names = [TopicPartition(topic, number) for number in await consumer.partitions_of(topic)]
        if not names:
            raise UnknownTopicError(f"There is no topic {topic} to read answers from.")
        begins, ends = await offsets_of(consumer, names, start), await consumer.end_offsets(names)
    most = max(1, last // len(names))
    return {name.partition: (max(begins[name], ends[name] - most), ends[name]) for name in names}


async def _merge(
    tally: Tally, partition: int, ours: AsyncIterator[ClassifyResult], theirs: AsyncIterator[ClassifyResult]
) -> None:
    a, b = await anext(ours, None), await anext(theirs, None)
    begun = False
    while a is not None and b is not None:
        if a.offset == b.offset:
            begun = True
            tally.joined(partition, a, b)
            a, b = await anext(ours, None), await anext(theirs, None)
        elif a.offset < b.offset:
            if begun:
                tally.alone(0)
            a = await anext(ours, None)
        else:
            if begun:
                tally.alone(1)
            b = await anext(theirs, None)


async def _answers(
    cluster: Cluster, name: TopicPartition, start: int, end: int
) -> AsyncGenerator[ClassifyResult, None]:
    """The answers of one results partition, without repeats, from ``start`` to ``end`` (not included)."""
    async with connected(cluster.consumer()) as consumer:
        begins = await consumer.beginning_offsets([name])
        reader = (await readers_at(consumer, {name: Place(start)}, begins, look_back=LOOK_BACK))[name]
        while start < end:
            try:
                async for records in read_ranges(consumer, {name: start}, {name: end}):
                    for record in records:
                        start = record.offset + 1
                        if (answer := read_answer(reader, record)) is not None:
                            yield answer.result
            except OffsetOutOfRangeError as error:
                start = (await begins_after_retention(consumer, error))[name]
            else:
                return
