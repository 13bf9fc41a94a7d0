"""The values of good requests: which text each has, how long it is, and its encoding.

Request ``number`` has text ``number`` of a shuffled round of all texts, so that every text comes up equally often
whatever the number of producers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from headrace_load.workload.lengths import lognormal, recorded, resized
from headrace_load.workload.recorded import read_recording
from headrace_load.workload.spec import (
    AsTheyAre,
    FixedLength,
    LogNormalLength,
    Recorded,
    RecordedLength,
    Workload,
    WorkloadError,
)
from headrace_schemas.codec import encode_request
from headrace_schemas.errors import WireError
from headrace_schemas.records import ClassifyRequest

Numbers = NDArray[np.int64]


def values_of(
    workload: Workload, texts: Sequence[str], rng: np.random.Generator, *, ids: bool
) -> Callable[[Numbers], list[bytes]]:
    """Return the function from requests' numbers to their values. Raises WorkloadError for what can't be encoded."""
    order = np.random.default_rng(workload.seed).permutation(len(texts))
    sizes_of = _sizes_of(workload, rng)
    kind = workload.content_type
    if sizes_of is not None:
        raw = [text.encode() for text in texts]

        def resized_values(numbers: Numbers) -> list[bytes]:
            places = order[numbers % len(order)].tolist()
            each = zip(numbers.tolist(), places, sizes_of(numbers).tolist(), strict=True)
            return [_encoded(resized(raw[place], size), kind, number if ids else None) for number, place, size in each]

        return resized_values
    if isinstance(workload.lengths, FixedLength):
        texts = [resized(text.encode(), workload.lengths.bytes) for text in texts]
    # Also where ids make every value another: it finds the texts that can't be sent before the run.
    known = [_encoded(text, kind, None) for text in texts]
    if not ids:
        return lambda numbers: [known[place] for place in order[numbers % len(order)].tolist()]

    def values_with_ids(numbers: Numbers) -> list[bytes]:
        each = zip(numbers.tolist(), order[numbers % len(order)].tolist(), strict=True)
        return [_encoded(texts[place], kind, number) for number, place in each]

    return values_with_ids


def _sizes_of(workload: Workload, rng: np.random.Generator) -> Callable[[Numbers], Numbers] | None:
    """Return the function from requests' numbers to their lengths in bytes, None where every text has one length."""
    match workload.lengths:
        case AsTheyAre() | FixedLength():
            return None
        case LogNormalLength() as lengths:
            return lambda numbers: lognormal(lengths, len(numbers), rng)
        case RecordedLength(path=path):
            same = isinstance(workload.arrivals, Recorded) and workload.arrivals.path == path
            recording = read_recording(path)
            return lambda numbers: recorded(recording, numbers, rng, same=same)


def _encoded(text: str, kind: str, number: int | None) -> bytes:
    request = ClassifyRequest(text=text, id=None if number is None else str(number))
    try:
        return encode_request(request, kind)
    except WireError as error:
        raise WorkloadError(
            f"A text of this workload can't be sent: {error}. Set [lengths] with a bound, or leave that text out."
        ) from error
