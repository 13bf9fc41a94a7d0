"""Read stretches of several partitions at once, by a consumer that belongs to no group."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.core.clock import Clock
from headrace.kafka.interface import Consumer, Record, TopicPartition
from headrace.logs import event

QUIET_S = 3.0
"""Without a record for so long, what is left before the end is no record (a transaction's marker)."""

MOST = 10_000


async def read_ranges(
    reader: Consumer, ranges: Mapping[TopicPartition, tuple[int, int]], clock: Clock
) -> dict[TopicPartition, list[Record]]:
    """Return the records of each partition with offsets in [first, end), and leave ``reader`` with no assignment.

    When nothing more comes the rest is taken to hold no record: who reads too little resumes too early, and that
    only repeats answers. Raises a KafkaError.
    """
    found: dict[TopicPartition, list[Record]] = {name: [] for name in ranges}
    waiting = {name: end for name, (first, end) in ranges.items() if first < end}
    if not waiting:
        return found
    reader.assign(waiting)
    for name in waiting:
        reader.seek(name, ranges[name][0])
    quiet_since = clock.monotonic()
    while waiting:
        chunks = await reader.fetch(max_records=MOST, timeout_s=QUIET_S / 4)
        for name, records in chunks.items():
            found[name].extend(record for record in records if record.offset < ranges[name][1])
        # By position, not by records: the last offsets before the end may hold none.
        waiting = {name: end for name, end in waiting.items() if await reader.position(name) < end}
        if chunks:
            quiet_since = clock.monotonic()
        elif clock.monotonic() - quiet_since > QUIET_S:
            event("log.quiet", partitions=[f"{name.topic}[{name.partition}]" for name in waiting])
            break
    # A consumer that is assigned something keeps asking for it, and its other requests wait behind that.
    reader.assign(())
    return found
