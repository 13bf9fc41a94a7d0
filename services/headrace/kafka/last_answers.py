"""The last answers of results partitions: a worker resumes by those at the end, a reader by those before its place.

Both look for the highest request offset, and what one of them counts the other has to count: answers, not offsets.
"""

from __future__ import annotations

from collections.abc import Mapping

from headrace.core.resume import Answered
from headrace.kafka.interface import Consumer, Record, TopicPartition
from headrace.kafka.range_reader import read_ranges
from headrace_schemas.codec import decode_result
from headrace_schemas.errors import WireError
from headrace_schemas.headers import content_type


async def last_answers(
    consumer: Consumer, logs: Mapping[TopicPartition, tuple[int, int]], count: int
) -> dict[TopicPartition, tuple[Answered, ...]]:
    """The last ``count`` answers of each log in its order; fewer where it holds fewer.

    ``logs`` has where each log begins and the offset to stop in front of. Offsets that hold no answer (none at all, a
    transaction's marker, somebody else's record) are stepped over: each look goes twice as far back as the one before.
    ``consumer`` is started and of no group; it is left with no assignment. Raises a KafkaError.
    """
    answers: dict[TopicPartition, list[Answered]] = {name: [] for name in logs}
    reach = count
    short = {name: end for name, (begin, end) in logs.items() if count and begin < end}
    while short:
        starts = {name: max(logs[name][0], logs[name][1] - reach) for name in short}
        found: dict[TopicPartition, list[Answered]] = {name: [] for name in short}
        async for records in read_ranges(consumer, starts, short):
            for record in records:
                if (answer := _answer(record)) is not None:
                    found[TopicPartition(record.topic, record.partition)].append(answer)
        for name, earlier in found.items():
            answers[name] = earlier + answers[name]
        short = {name: start for name, start in starts.items() if start > logs[name][0] and len(answers[name]) < count}
        reach *= 2
    return {name: tuple(of_log[-count:]) if count else () for name, of_log in answers.items()}


def _answer(record: Record) -> Answered | None:
    try:
        result = decode_result(record.value, content_type(record.headers))
    except WireError:
        # Somebody else wrote here; the claim keeps workers out, and readers say it of every such record.
        return None
    return Answered(result.offset, result.crc)
