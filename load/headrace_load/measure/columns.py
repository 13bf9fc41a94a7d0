"""What producers and readers write down: one row a request or an answer, as numpy structured arrays.

Times are int64 microseconds since the Unix epoch, all by this machine's clock but ``appended_us``, which is the
broker's (a record's timestamp, in whole milliseconds).

Rows that grow by small pieces and go to a file now and then, so that a long run needs no memory for them.

Between two writes each column is an array of Python's own, cheaper to append to than numpy's.

Requests beside their answers, over whole columns.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

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
    """Rows of a structured ``dtype`` of :mod:`headrace_load.measure.columns`."""

    def __init__(self, dtype: np.dtype[np.void]) -> None:
        self._dtype = dtype
        self._columns: dict[str, array[Any]] = {name: array(_CODES[dtype[name].str[1:]]) for name in dtype.names or ()}
        self._flushed = 0

    def __len__(self) -> int:
        """How many were added, written or not."""
        return self._flushed + len(next(iter(self._columns.values())))

    def add(self, **columns: Iterable[int]) -> None:
        """Append rows; every column is given, all of one length."""
        for name, values in columns.items():
            self._columns[name].extend(values)

    def flush(self, file: BinaryIO) -> NDArray[np.void]:
        """Write the rows that were added since the last time, and return them."""
        rows = np.empty(len(self) - self._flushed, self._dtype)
        for name, column in self._columns.items():
            rows[name] = np.array(column, dtype=self._dtype[name])
            del column[:]
        self._flushed += len(rows)
        file.write(rows.tobytes())
        return rows


def read_rows(files: Sequence[Path], dtype: np.dtype[np.void]) -> NDArray[np.void]:
    """All rows of ``files``; of a single one they stay on disk until they are looked at."""
    parts = [np.memmap(file, dtype, mode="r") for file in files if file.stat().st_size]
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.empty(0, dtype)


Columns = NDArray[np.void]
Answers = Literal["log", "id"]
"""How answers are known: by partition and offset of the request, or by its number."""

_PARTITION = 2**40
"""Offsets of a partition, which must be fewer than this; there can be 2**23 partitions."""


def keys(rows: Columns, answers: Answers) -> NDArray[np.int64]:
    """One number for each row, the same for a request and its answer. A request without a place has -1."""
    if answers == "id":
        return np.asarray(rows["number"], dtype=np.int64)
    return np.where(rows["offset"] < 0, -1, rows["partition"].astype(np.int64) * _PARTITION + rows["offset"])


def join(sent: Columns, answered: Columns, answers: Answers) -> NDArray[np.int64]:
    """For each request the row of its first answer, -1 where there is none. O(n log n)."""
    wanted, found = keys(sent, answers), keys(answered, answers)
    if not len(found):
        return np.full(len(wanted), -1, dtype=np.int64)
    order = np.argsort(found, kind="stable")
    ordered = found[order]
    at = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
    return np.where((ordered[at] == wanted) & (wanted >= 0), order[at], -1)
