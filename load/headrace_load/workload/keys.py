"""Which key each record has."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from headrace_load.workload.recorded import Recording, read_recording
from headrace_load.workload.spec import NoKeys, Recorded, RecordedKeys, UniqueKeys, Workload, ZipfKeys

KeysOf = Callable[[NDArray[np.int64]], Sequence[bytes | None]]


def keys_of(workload: Workload, rng: np.random.Generator) -> KeysOf:
    """Return the function from requests' numbers to their keys. Raises WorkloadError for a bad recording."""
    match workload.keys:
        case NoKeys():
            return lambda numbers: [None] * len(numbers)
        case UniqueKeys():
            return lambda numbers: [b"k%d" % number for number in numbers.tolist()]
        case ZipfKeys() as zipf:
            edges = np.cumsum(np.arange(1, zipf.keys + 1, dtype=np.float64) ** -zipf.exponent)
            return lambda numbers: [b"k%d" % rank for rank in _ranks(edges, len(numbers), rng)]
        case RecordedKeys(path=path):
            same = isinstance(workload.arrivals, Recorded) and workload.arrivals.path == path
            return _recorded(read_recording(path), rng, same=same)


def _ranks(edges: NDArray[np.float64], count: int, rng: np.random.Generator) -> list[int]:
    ranks = np.searchsorted(edges, rng.random(count) * edges[-1], side="right")
    # A product rounded up to the last edge would be one rank too many.
    ranks_from_one: list[int] = (np.minimum(ranks, len(edges) - 1) + 1).tolist()
    return ranks_from_one


def _recorded(recording: Recording, rng: np.random.Generator, *, same: bool) -> KeysOf:
    def keys(numbers: NDArray[np.int64]) -> list[bytes | None]:
        rows = numbers if same else rng.integers(0, len(recording.keys), len(numbers))
        return [recording.keys[row] for row in rows.tolist()]

    return keys
