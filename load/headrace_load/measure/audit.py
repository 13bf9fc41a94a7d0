"""The rows that producers and the reader write, and their audit: it compares acknowledged requests with accepted
answers.

A row describes one request or one answer; rows are a numpy structured array. Times are int64 microseconds since the
Unix epoch by this machine's clock. Only ``appended_us`` is the broker's: a record's timestamp, in whole milliseconds.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

SENT = np.dtype(
    [
        ("number", np.int64),  # of the request in the whole workload, from 0; also its id where ids are asked for
        ("partition", np.int32),
        ("offset", np.int64),  # -1: not acknowledged
        ("crc", np.uint32),
        ("bytes", np.int32),  # of the value
        ("good", np.bool_),  # False: rubbish on purpose
        ("due_us", np.int64),
        ("sent_us", np.int64),
        ("acked_us", np.int64),
    ]
)

ANSWERED = np.dtype(
    [
        ("number", np.int64),  # by id; -1 where answers are known by partition and offset
        ("partition", np.int32),
        ("offset", np.int64),  # of the request
        ("position", np.int64),  # of the answer
        ("crc", np.uint32),
        ("status", np.int8),  # index in STATUSES
        ("hole", np.bool_),  # the reader saw a hole before it
        ("appended_us", np.int64),
        ("arrived_us", np.int64),  # -1: read after the run
    ]
)

STATUSES = ("ok", "expired", "failed")


_CODES = {"i1": "b", "b1": "b", "i4": "i", "u4": "I", "i8": "q"}


class Rows:
    """Rows of a structured ``dtype`` of :mod:`headrace_load.measure.audit`."""

    def __init__(self, dtype: np.dtype[np.void]) -> None:
        self._dtype = dtype
        self._columns: dict[str, array[Any]] = {name: array(_CODES[dtype[name].str[1:]]) for name in dtype.names or ()}
        self._flushed = 0

    def __len__(self) -> int:
        """How many rows were added, written or not."""
        return self._flushed + len(next(iter(self._columns.values())))

    def add(self, **columns: Iterable[int]) -> None:
        """Append rows. All columns are given and have the same length."""
        for name, values in columns.items():
            self._columns[name].extend(values)

    def flush(self, file: BinaryIO) -> NDArray[np.void]:
        """Write the rows that were added since the last call, and return them."""
        rows = np.empty(len(self) - self._flushed, self._dtype)
        for name, column in self._columns.items():
            rows[name] = np.array(column, dtype=self._dtype[name])
            del column[:]
        self._flushed += len(rows)
        file.write(rows.tobytes())
        return rows


def read_rows(files: Sequence[Path], dtype: np.dtype[np.void]) -> NDArray[np.void]:
    """All rows of ``files``. Those of a single file stay on disk until they are used."""
    parts = [np.memmap(file, dtype, mode="r") for file in files if file.stat().st_size]
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.empty(0, dtype)


Columns = NDArray[np.void]
Answers = Literal["log", "id"]
"""How an answer names its request: by partition and offset, or by its number."""

_PARTITION = 2**40
"""A partition must have fewer offsets than this. There can be 2**23 partitions."""


def keys(rows: Columns, answers: Answers) -> NDArray[np.int64]:
    """A number for each row, equal for a request and its answer. A request without a place has -1."""
    if answers == "id":
        return np.asarray(rows["number"], dtype=np.int64)
    return np.where(rows["offset"] < 0, -1, rows["partition"].astype(np.int64) * _PARTITION + rows["offset"])


def join(sent: Columns, answered: Columns, answers: Answers) -> NDArray[np.int64]:
    """For each request, the row of its first answer; -1 without one. O(n log n)."""
    wanted, found = keys(sent, answers), keys(answered, answers)
    if not len(found):
        return np.full(len(wanted), -1, dtype=np.int64)
    order = np.argsort(found, kind="stable")
    ordered = found[order]
    at = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
    return np.where((ordered[at] == wanted) & (wanted >= 0), order[at], -1)


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of one run. The reader saw ``repeated`` answers twice, and dropped ``dropped`` repeats.

    ``answered`` counts requests of this run; answers to other requests are left out. ``seconds`` is the time from the
    append of the first answer to that of the last. ``dropped``, ``holes``, ``wrong`` and ``out_of_order`` need the
    answer log: they can't be seen in answers that name an id.
    """

    published: int
    answered: int
    lost: int
    repeated: int
    dropped: int
    holes: int
    wrong: int
    by_status: dict[str, int]
    seconds: float
    out_of_order: int = 0

    @property
    def kept(self) -> bool:
        return not (self.lost or self.repeated or self.holes or self.wrong or self.out_of_order)

    def line(self) -> str:
        """The audit in one line."""
        statuses = ", ".join(f"{count:,} {status}" for status, count in sorted(self.by_status.items()))
        return (
            f"published {self.published:,}, answered {self.answered:,} ({statuses}), lost {self.lost:,}, "
            f"repeated {self.repeated:,}, raw repeats dropped {self.dropped:,}, holes {self.holes:,}, "
            f"answers to other texts {self.wrong:,}, out of order {self.out_of_order:,}"
        )


def expected_answers(sent: Columns, answers: Answers) -> NDArray[np.bool_]:
    """Which requests must be answered: the acknowledged ones. Only headrace has to answer rubbish, by `failed`."""
    acknowledged: NDArray[np.bool_] = sent["acked_us"] >= 0
    return acknowledged if answers == "log" else acknowledged & sent["good"]


def audited(sent: Columns, answered: Columns, answers: Answers, *, records: int) -> Audit:
    """Audit rows of SENT against rows of ANSWERED. The log held ``records`` records."""
    acknowledged = sent["acked_us"] >= 0
    first = join(sent, answered, answers)
    has = first >= 0
    expected = expected_answers(sent, answers)
    known = keys(sent, answers)
    of_ours = np.isin(keys(answered, answers), known[known >= 0])
    by_log = answers == "log"
    times = answered["appended_us"][first[has]]
    counts = np.bincount(answered["status"][first[has]], minlength=len(STATUSES))
    return Audit(
        published=int(acknowledged.sum()),
        answered=int(has.sum()),
        lost=int((expected & ~has).sum()),
        repeated=int(of_ours.sum()) - int(has.sum()),
        dropped=records - len(answered) if by_log else 0,
        holes=int(answered["hole"].sum()),
        wrong=int((sent["crc"][has] != answered["crc"][first[has]]).sum()) if by_log else 0,
        by_status={status: int(count) for status, count in zip(STATUSES, counts, strict=True) if count},
        seconds=float(times.max() - times.min()) / 1e6 if len(times) else 0.0,
        out_of_order=out_of_order(answered[np.argsort(answered["position"], kind="stable")]) if by_log else 0,
    )


def out_of_order(answered: Columns) -> int:
    """How many of ``answered``, in the order given, come after an answer to a later request of their partition."""
    count = 0
    for partition in np.unique(answered["partition"]):
        offsets = answered["offset"][answered["partition"] == partition]
        count += int((offsets < np.maximum.accumulate(offsets)).sum())
    return count
