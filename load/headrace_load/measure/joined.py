"""Requests beside their answers, over whole columns."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.void]
Answers = Literal["log", "id"]
"""How answers are known: by partition and offset of the request, or by its number."""

_PARTITION = 2**40
"""Offsets of a partition, which must be fewer than this; there can be 2**23 partitions."""


def keys(rows: Rows, answers: Answers) -> NDArray[np.int64]:
    """One number for each row, the same for a request and its answer. A request without a place has -1."""
    if answers == "id":
        return np.asarray(rows["number"], dtype=np.int64)
    return np.where(rows["offset"] < 0, -1, rows["partition"].astype(np.int64) * _PARTITION + rows["offset"])


def join(sent: Rows, answered: Rows, answers: Answers) -> NDArray[np.int64]:
    """For each request the row of its first answer, -1 where there is none. O(n log n)."""
    wanted, found = keys(sent, answers), keys(answered, answers)
    if not len(found):
        return np.full(len(wanted), -1, dtype=np.int64)
    order = np.argsort(found, kind="stable")
    ordered = found[order]
    at = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
    return np.where((ordered[at] == wanted) & (wanted >= 0), order[at], -1)
