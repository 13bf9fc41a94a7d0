"""Rows that grow by small pieces: an array a column, cheaper to append to than numpy's, made one at the end."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CODES = {"i1": "b", "b1": "b", "i4": "i", "u4": "I", "i8": "q"}


class Rows:
    """Rows of a structured ``dtype`` of :mod:`headrace_load.measure.columns`."""

    def __init__(self, dtype: np.dtype[np.void]) -> None:
        self._dtype = dtype
        self._columns: dict[str, array[Any]] = {name: array(_CODES[dtype[name].str[1:]]) for name in dtype.names or ()}

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    def add(self, **columns: Iterable[int]) -> None:
        """Append rows; every column is given, all of one length."""
        for name, values in columns.items():
            self._columns[name].extend(values)

    def column(self, name: str, start: int = 0) -> NDArray[Any]:
        """A copy of a column from row ``start`` on."""
        return np.array(self._columns[name][start:], dtype=self._dtype[name])

    def written(self) -> NDArray[np.void]:
        """All rows as one structured array."""
        rows = np.empty(len(self), self._dtype)
        for name in self._columns:
            rows[name] = self.column(name)
        return rows
