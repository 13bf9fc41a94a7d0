"""Rows that grow by small pieces and go to a file now and then, so that a long run needs no memory for them.

Between two writes each column is an array of Python's own, cheaper to append to than numpy's.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

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
