"""Read what partitions hold between two positions, and no further, by a consumer that belongs to no group."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

from headrace.kafka.errors import BrokerUnavailableError
from headrace.kafka.interface import Consumer, Record, TopicPartition

CHUNK = 2000
FETCH_S = 0.5
EMPTY_FETCHES = 120
"""So many fetches in a row that bring nothing, a minute of them, end the reading."""


async def read_stretches(
    consumer: Consumer,
    starts: Mapping[TopicPartition, int],
    ends: Mapping[TopicPartition, int],
    *,
    chunk: int = CHUNK,
) -> AsyncIterator[Sequence[Record]]:
    """Iterate over the records from ``starts`` up to ``ends`` (not included), at most ``chunk`` at a time.

    Those of one partition come in the order of their offsets. ``consumer`` is started; its assignment is replaced.
    Raises BrokerUnavailableError when nothing comes for a minute, and other KafkaErrors.
    """
    waiting = {name for name, start in starts.items() if start < ends[name]}
    consumer.assign(waiting)
    for name in waiting:
        consumer.seek(name, starts[name])
    empty = 0
    while waiting:
        chunks = await consumer.fetch(max_records=chunk, timeout_s=FETCH_S, partitions=waiting)
        records = [record for name, found in chunks.items() for record in found if record.offset < ends[name]]
        if records:
            yield records
        # By position, not by records: the last offsets may hold none, behind a transaction's marker.
        waiting = {name for name in waiting if await consumer.position(name) < ends[name]}
        empty = 0 if records else empty + 1
        if waiting and empty == EMPTY_FETCHES:
            missing = [
                f"{name.topic}[{name.partition}] from {await consumer.position(name)} up to {ends[name]}"
                for name in sorted(waiting)
            ]
            raise BrokerUnavailableError(
                f"For {EMPTY_FETCHES * FETCH_S:.0f} s nothing more came of {', '.join(missing)}. "
                "Is a broker away, or was a topic deleted?"
            )
