"""Replay: the last real requests answered by candidate and champion, and which answers would change.

Nothing is held but counts: a chunk of requests is decoded, answered by both and forgotten, so memory is bounded by the
chunk however many are replayed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from headrace.core.gate import ClassChange, Replayed
from headrace.kafka.interface import Consumer, Record, TopicPartition
from headrace.kafka.range_reader import read_ranges
from headrace_schemas.errors import WireError
from headrace_schemas.headers import content_type
from headrace_schemas.paths import Decode

Answer = Callable[[Sequence[bytes]], Sequence[str | None]]
"""Texts in UTF-8 to the labels that a reader would see, None where the version abstains."""
Offload = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs a function off the event loop."""

CHUNK = 500
_NO_LABEL = "(no label)"


async def replay(
    consumer: Consumer,
    topic: str,
    count: int,
    *,
    decode: Decode,
    candidate: Answer,
    champion: Answer,
    offload: Offload,
) -> Replayed:
    """Answer the last ``count`` records of ``topic``, from all its partitions, and compare.

    A record that a worker could not decode is passed over and counted. A topic that is not there, or empty, gives no
    requests. Raises a KafkaError when the topic can't be read, and what the answering functions raise.
    """
    pairs: Counter[tuple[str, str]] = Counter()
    unreadable = 0
    starts, ends = await _last(consumer, topic, count)
    async for records in read_ranges(consumer, starts, ends, chunk=CHUNK):
        texts = [text for record in records if (text := _text(record, decode)) is not None]
        unreadable += len(records) - len(texts)
        pairs += await offload(partial(_count, champion, candidate, texts))
    return Replayed(
        requests=pairs.total(),
        changed=sum(times for (before, after), times in pairs.items() if before != after),
        unreadable=unreadable,
        classes=_by_class(pairs),
    )


def tails(lengths: Mapping[int, int], count: int) -> dict[int, int]:
    """How many of the last records to take from each partition, ``count`` in all: equal shares, and what a short
    partition can't give comes from the others.
    """
    taken = dict.fromkeys(lengths, 0)
    left = count
    # From the shortest on, each may take an equal share of what is left.
    for place, (partition, length) in enumerate(sorted(lengths.items(), key=lambda item: (item[1], item[0]))):
        taken[partition] = min(length, left // (len(lengths) - place))
        left -= taken[partition]
    return taken


async def _last(
    consumer: Consumer, topic: str, count: int
) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
    """Where the last ``count`` records begin and end in each partition."""
    names = [TopicPartition(topic, number) for number in sorted(await consumer.partitions_of(topic))]
    begins, ends = await consumer.beginning_offsets(names), await consumer.end_offsets(names)
    taken = tails({name.partition: ends[name] - begins[name] for name in names}, count)
    return {name: ends[name] - taken[name.partition] for name in names}, ends


def _text(record: Record, decode: Decode) -> bytes | None:
    try:
        return decode(record.value, content_type(record.headers)).text.encode()
    except WireError:
        return None


def _count(champion: Answer, candidate: Answer, texts: Sequence[bytes]) -> Counter[tuple[str, str]]:
    """How often each pair of labels, the champion's and the candidate's, occurs."""
    shown = [[_NO_LABEL if label is None else label for label in answer(texts)] for answer in (champion, candidate)]
    return Counter(zip(*shown, strict=True))


def _by_class(pairs: Counter[tuple[str, str]]) -> tuple[ClassChange, ...]:
    requests: Counter[str] = Counter()
    changes: dict[str, Counter[str]] = {}
    for (before, after), times in pairs.items():
        requests[before] += times
        if before != after:
            changes.setdefault(before, Counter())[after] += times
    return tuple(
        ClassChange(label, requests[label], changes[label].total(), _most(changes[label]))
        if label in changes
        else ClassChange(label, requests[label], 0, None)
        for label in sorted(requests)
    )


def _most(towards: Counter[str]) -> str:
    return min(towards, key=lambda label: (-towards[label], label))
