"""The requests that a producer sends: all parts of a workload put together, in chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from msgspec import Struct

from headrace_load.workload.arrivals import arrivals
from headrace_load.workload.keys import keys_of
from headrace_load.workload.recorded import read_recording
from headrace_load.workload.rubbish import rubbish
from headrace_load.workload.spec import Recorded, Workload, WorkloadError
from headrace_load.workload.values import values_of
from headrace_schemas.codec import decode_request
from headrace_schemas.headers import CONTENT_TYPE, JSON, TEXT, TIMEOUT_MS, Headers

# Each part draws of a stream of its own, so that a change of one leaves the others as they were.
_ARRIVALS, _LENGTHS, _KEYS, _DEADLINES, _BAD = range(5)


class Planned(Struct, frozen=True, gc=False):
    """A record to publish ``due_s`` seconds after the run's beginning, warm-up included.

    ``number`` is of the request in the whole workload, from 0; in Poisson arrivals some numbers are left out.
    ``good`` is False for rubbish on purpose.
    """

    number: int
    due_s: float
    value: bytes | None
    key: bytes | None
    headers: Headers
    good: bool


def requests(workload: Workload, producer: int, texts: Sequence[str], *, ids: bool) -> Iterator[Planned]:
    """Yield what ``producer``, of 0 to ``workload.producers`` - 1, sends, in the order of its time.

    The same for the same arguments. With ``ids`` a good request's id is its number. Raises WorkloadError for a
    recording that can't be used, and for a text that no request can hold.
    """
    if ids and workload.content_type == TEXT:
        raise WorkloadError(f"content_type {TEXT} has no place for the ids that this contender's answers are known by")
    if not texts:
        raise WorkloadError("a workload needs at least one text")
    return _chunks(workload, producer, texts, ids=ids)


def _chunks(workload: Workload, producer: int, texts: Sequence[str], *, ids: bool) -> Iterator[Planned]:
    def stream(part: int) -> np.random.Generator:
        return np.random.default_rng([workload.seed, producer, part])

    recording = read_recording(workload.arrivals.path) if isinstance(workload.arrivals, Recorded) else None
    values_at = values_of(workload, texts, stream(_LENGTHS), ids=ids)
    keys_at = keys_of(workload, stream(_KEYS))
    deadlines, bad = stream(_DEADLINES), stream(_BAD)
    plain, urgent = _headers(workload)
    share_bad = workload.bad.share if workload.bad else 0.0
    share_urgent = workload.deadlines.share if workload.deadlines else 0.0
    for numbers, due in arrivals(workload, producer, stream(_ARRIVALS), recording):
        count = len(numbers)
        values: list[bytes | None] = list(values_at(numbers))
        headers: list[Headers] = [plain] * count
        good = [True] * count
        if share_urgent:
            headers = [urgent if late else plain for late in (deadlines.random(count) < share_urgent).tolist()]
        if workload.bad and share_bad:
            places = np.flatnonzero(bad.random(count) < share_bad)
            kinds = bad.integers(0, len(workload.bad.kinds), len(places)).tolist()
            for place, kind in zip(places.tolist(), kinds, strict=True):
                text = decode_request(values[place], workload.content_type).text
                values[place], headers[place] = rubbish(workload.bad.kinds[kind], text)
                good[place] = False
        yield from map(Planned, numbers.tolist(), due.tolist(), values, keys_at(numbers), headers, good)


def _headers(workload: Workload) -> tuple[Headers, Headers]:
    kind = workload.content_type
    plain: tuple[tuple[str, bytes], ...] = () if kind == JSON else ((CONTENT_TYPE, kind.encode()),)
    if workload.deadlines is None:
        return plain, plain
    return plain, (*plain, (TIMEOUT_MS, b"%d" % workload.deadlines.timeout_ms))
