"""How long texts are: lengths drawn or recorded, and texts cut or repeated to them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headrace_load.workload.recorded import Recording
from headrace_load.workload.spec import LogNormalLength


def resized(text: bytes, size: int) -> str:
    """Cut UTF-8 ``text`` to at most ``size`` bytes, repeating it with spaces between where it is shorter.

    No character is split, so up to three bytes fewer come back. An empty text stays empty.
    """
    if 0 < len(text) < size:
        text = (text + b" ") * (size // (len(text) + 1) + 1)
    return text[:size].decode("utf-8", "ignore")


def lognormal(lengths: LogNormalLength, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw ``count`` lengths in bytes, from 1 to ``lengths.most``."""
    drawn = rng.lognormal(np.log(lengths.median), lengths.sigma, count)
    return np.clip(np.rint(drawn), 1, lengths.most).astype(np.int64)


def recorded(
    recording: Recording, numbers: NDArray[np.int64], rng: np.random.Generator, *, same: bool
) -> NDArray[np.int64]:
    """Return the lengths of the arrivals ``numbers`` when they are the ``same`` recording's, or draw of its lengths."""
    return recording.sizes[numbers if same else rng.integers(0, len(recording.sizes), len(numbers))]
