"""The history of a run, and the checker that finds out what happened to each request.

It trusts no single source. Published are the requests that were acknowledged to producers and those in the requests
log. Answered are the requests whose answers a reader of the client accepted; the whole results log is read too. The
checker is pure, so that tests can give it histories that break the promise.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Sequence

import numpy as np
from aiokafka import TopicPartition
from aiokafka.structs import ConsumerRecord
from msgspec import Struct
from numpy.typing import NDArray

from headrace_load.measure.audit import STATUSES, join, keys, out_of_order
from headrace_load.target import System
from headrace_schemas.codec import decode_result
from headrace_schemas.errors import WireError
from headrace_schemas.headers import content_type

REQUEST = np.dtype([("partition", np.int32), ("offset", np.int64), ("crc", np.uint32), ("appended_us", np.int64)])
"""A record of the requests log."""

LOGGED = np.dtype(
    [
        ("partition", np.int32),
        ("position", np.int64),  # of the answer
        ("offset", np.int64),  # of the request, as the answer says
        ("after", np.int64),
        ("crc", np.uint32),
        ("status", np.int8),  # index in STATUSES
        ("digest", np.uint32),  # CRC-32 of the answer's value: equal answers are the same bytes
        ("appended_us", np.int64),
    ]
)
"""An answer in the results log, repeats included."""

LOST = np.dtype([("partition", np.int32), ("first", np.int64), ("last", np.int64)])
"""A range of requests that an answer says is lost."""

FETCH_MS = 500
QUIET_FETCHES = 10


class History(Struct, frozen=True, kw_only=True):
    """``sent`` has rows of audit.SENT, ``requests`` of REQUEST, ``log`` of LOGGED in the order of the log, ``said``
    of LOST; ``seen`` has rows of audit.ANSWERED in the order in which the reader accepted them. ``began_us`` is
    when the fault began (microseconds since the Unix epoch), 0 without one.
    """

    sent: NDArray[np.void]
    requests: NDArray[np.void]
    log: NDArray[np.void]
    seen: NDArray[np.void]
    said: NDArray[np.void]
    began_us: int


async def read_requests(system: System) -> NDArray[np.void]:
    """Every record that the requests log holds now."""
    rows = [
        (record.partition, record.offset, zlib.crc32(record.value or b""), record.timestamp * 1000)
        async for record in _records(system, system.requests)
    ]
    return np.array(rows, REQUEST)


async def read_answers(system: System) -> tuple[NDArray[np.void], NDArray[np.void]]:
    """Every answer that the results log holds now, and the losses that answers report. Other records are left out."""
    rows, lost = [], []
    async for record in _records(system, system.results):
        try:
            result = decode_result(record.value, content_type(tuple(record.headers)))
        except WireError:
            continue  # somebody else's record, which readers skip and say
        rows.append(
            (
                *(record.partition, record.offset, result.offset, result.after, result.crc),
                STATUSES.index(result.status),
                zlib.crc32(record.value or b""),
                record.timestamp * 1000,
            )
        )
        if result.lost is not None:
            lost.append((record.partition, result.lost.first, result.lost.last))
    return np.array(rows, LOGGED), np.array(lost, LOST)


def together(place: str, logs: Sequence[NDArray[np.void]]) -> NDArray[np.void]:
    """One log from reads at several times. If two have a record at the same ``place``, the one that was read first
    counts.
    """
    rows = np.concatenate(logs)
    _, first = np.unique(rows[["partition", place]], return_index=True)
    return rows[np.sort(first)] if len(logs) > 1 else rows


async def _records(system: System, topic: str) -> AsyncIterator[ConsumerRecord]:
    """Read from the beginning to the end as it is now, aborted records left out."""
    async with system.admin() as admin:
        (found,) = await admin.describe_topics([topic])
    names = [TopicPartition(topic, number) for number in sorted(part["partition"] for part in found["partitions"])]
    options = {"auto_offset_reset": "none", "isolation_level": "read_committed", "fetch_max_wait_ms": 100}
    async with system.consumer(**options) as consumer:
        begins, ends = await consumer.beginning_offsets(names), await consumer.end_offsets(names)
        consumer.assign(names)
        for name in names:
            consumer.seek(name, begins[name])
        quiet = 0
        while quiet < QUIET_FETCHES and any([await consumer.position(name) < ends[name] for name in names]):
            chunks = await consumer.getmany(timeout_ms=FETCH_MS)
            quiet = 0 if chunks else quiet + 1
            for chunk in chunks.values():
                for record in chunk:
                    yield record


RECOVERED_US = 1_000_000
"""A request that waits longer than this is not answered as usual."""
_NEVER = -(2**62)


class Repeats(Struct, frozen=True, kw_only=True):
    """Raw repeats that the reader dropped. ``equal`` are the same bytes again, as of a worker that could not know
    whether its answers had arrived, or of a zombie; ``other`` differ, as by another version or as `expired` after `ok`.
    """

    equal: int = 0
    other: int = 0

    def __str__(self) -> str:
        return str(self.equal) if not self.other else f"{self.equal} + {self.other} that differ"


class Checked(Struct, frozen=True, kw_only=True):
    """Counts of requests and answers; times in seconds.

    ``lost`` were acknowledged, have no answer that a reader accepted, and nobody said so; ``said`` are those of which
    an answer or a worker says that they are lost. ``seen_twice`` were accepted twice. ``unlogged`` were accepted and
    are not in the results log any more, which nobody said. ``invented`` are accepted answers to requests that are not
    in the log, ``wrong`` those that repeat another CRC-32 than the request has, ``out_of_order`` those behind one to a
    later request. ``holes`` were reported to the reader. ``stall_s`` is the longest time in which a request waited and
    nothing of its partition was answered, ``recovery_s`` how long after the fault's beginning a request still waited
    more than a second.
    """

    acknowledged: int
    answered: int
    lost: int
    said: int
    seen_twice: int
    raw: Repeats
    unlogged: int
    invented: int
    wrong: int
    out_of_order: int
    holes: int
    stall_s: float
    recovery_s: float

    @property
    def kept(self) -> bool:
        """Whether every acknowledged request was answered exactly once, in order."""
        return self.told and not (self.said or self.holes or self.unlogged)

    @property
    def told(self) -> bool:
        """Whether nothing happened that nobody said."""
        return not (self.lost or self.seen_twice or self.unlogged or self.invented or self.wrong or self.out_of_order)

    def line(self) -> str:
        """All of it in one line."""
        return (
            f"acknowledged {self.acknowledged:,}, answered {self.answered:,}, lost {self.lost:,}, "
            f"said to be lost {self.said:,}, seen twice {self.seen_twice:,}, raw repeats {self.raw}, "
            f"no longer in the log {self.unlogged:,}, "
            f"invented {self.invented:,}, wrong {self.wrong:,}, out of order {self.out_of_order:,}, "
            f"holes {self.holes:,}, "
            f"stall {self.stall_s:.2f} s, recovery {self.recovery_s:.2f} s"
        )


def check(history: History) -> Checked:
    """Check a history. O(n log n)."""
    sent, seen, log = history.sent, history.seen, history.log
    acknowledged = sent["acked_us"] >= 0
    first = join(sent, seen, "log")
    answered = first >= 0
    said = _inside(sent, history.said)
    unanswered = acknowledged & ~answered
    known = _known(history)
    of_known = np.searchsorted(known["key"], keys(seen, "log"))
    place = np.minimum(of_known, max(len(known) - 1, 0))
    exists = known["key"][place] == keys(seen, "log") if len(known) else np.zeros(len(seen), np.bool_)
    wrong = exists & (known["crc"][place] != seen["crc"]) if len(known) else exists
    return Checked(
        acknowledged=int(acknowledged.sum()),
        answered=int((acknowledged & answered).sum()),
        lost=int((unanswered & ~said).sum()),
        said=int((unanswered & said).sum()),
        seen_twice=len(seen) - len(np.unique(keys(seen, "log"))),
        raw=_repeats(log),
        unlogged=int(((join(seen, log, "log") < 0) & ~_inside(seen, history.said)).sum()),
        invented=int((~exists).sum()),
        wrong=int(wrong.sum()),
        out_of_order=out_of_order(seen),
        holes=int(seen["hole"].sum()),
        stall_s=_stall_us(history) / 1e6,
        recovery_s=_recovery_us(history) / 1e6,
    )


def _known(history: History) -> NDArray[np.void]:
    """Key and CRC-32 of every request that is known, from the log and from the producers, sorted by key."""
    acknowledged = history.sent[history.sent["acked_us"] >= 0]
    both = np.concatenate([keys(history.requests, "log"), keys(acknowledged, "log")])
    known = np.empty(len(both), [("key", np.int64), ("crc", np.uint32)])
    known["key"] = both
    known["crc"] = np.concatenate([history.requests["crc"], acknowledged["crc"]])
    return known[np.unique(both, return_index=True)[1]]


def _inside(sent: NDArray[np.void], ranges: NDArray[np.void]) -> NDArray[np.bool_]:
    """Which requests lie in one of the ranges."""
    inside = np.zeros(len(sent), np.bool_)
    for partition, low, high in ranges.tolist():
        inside |= (sent["partition"] == partition) & (sent["offset"] >= low) & (sent["offset"] <= high)
    return inside


def _repeats(log: NDArray[np.void]) -> Repeats:
    """Answers in the log to requests at or below the highest request that was answered before them."""
    equal = other = 0
    for partition in np.unique(log["partition"]):
        rows = log[log["partition"] == partition]
        before = np.concatenate([[_NEVER], np.maximum.accumulate(rows["offset"])[:-1]])
        dropped = rows[rows["offset"] <= before]
        accepted = dict(zip(rows["offset"][::-1].tolist(), rows["digest"][::-1].tolist(), strict=True))
        same = sum(accepted[int(row["offset"])] == int(row["digest"]) for row in dropped)
        equal, other = equal + same, other + len(dropped) - same
    return Repeats(equal=equal, other=other)


def _waits(history: History) -> NDArray[np.void]:
    """Of each request of the log that has an answer in the log: when both were appended; by partition and offset.

    Both clocks are the brokers'.
    """
    requests, log = history.requests, history.log
    first = join(requests, log, "log")
    has = first >= 0
    waits = np.empty(
        int(has.sum()), [("partition", np.int32), ("offset", np.int64), ("came", np.int64), ("done", np.int64)]
    )
    for name in ("partition", "offset"):
        waits[name] = requests[name][has]
    waits["came"] = requests["appended_us"][has]
    waits["done"] = log["appended_us"][first[has]]
    return np.sort(waits, order=["partition", "offset"])


def _stall_us(history: History) -> int:
    waits = _waits(history)
    longest = 0
    for partition in np.unique(waits["partition"]):
        rows = waits[waits["partition"] == partition]
        before = np.concatenate([[_NEVER], rows["done"][:-1]])
        longest = max(longest, int((rows["done"] - np.maximum(before, rows["came"])).max()))
    return longest


def _recovery_us(history: History) -> int:
    waits = _waits(history)
    slow = waits["done"][waits["done"] - waits["came"] > RECOVERED_US]
    slow = slow[slow >= history.began_us]
    return int(slow.max()) - history.began_us if len(slow) and history.began_us else 0
