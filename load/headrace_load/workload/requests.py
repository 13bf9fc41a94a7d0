"""The requests that a producer sends: when each is due, and what is in it.

A Poisson process whose rate varies is made by thinning one at its highest rate (Lewis and Shedler, Simulation of
nonhomogeneous Poisson processes by thinning, Naval Research Logistics Quarterly 26, 1979). The sum of independent
Poisson processes is one again, so each producer draws its own at its share of the rate and the split is exact.

Request ``number`` has text ``number`` of a shuffled round of all texts. So every text occurs equally often, whatever
the number of producers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from headrace_load.workload.recording import Recording, read_recording
from headrace_load.workload.spec import (
    AsTheyAre,
    Backlog,
    Burst,
    Constant,
    Diurnal,
    FixedLength,
    LogNormalLength,
    NoKeys,
    Poisson,
    Ramp,
    Recorded,
    RecordedKeys,
    RecordedLength,
    Step,
    UniqueKeys,
    Workload,
    WorkloadError,
    ZipfKeys,
)
from headrace_load.workload.texts import lognormal, resized, rubbish
from headrace_schemas.codec import decode_request, encode_request
from headrace_schemas.errors import WireError
from headrace_schemas.headers import CONTENT_TYPE, JSON, TEXT, TIMEOUT_MS, Headers
from headrace_schemas.records import ClassifyRequest

CHUNK = 8192
"""How many requests, or candidates of a thinning, are made at once."""

SPAN = 0.5
"""The fraction of a run that a recording has to span: a quiet end may be real, but a half-empty run is a mistake."""

Chunk = tuple[NDArray[np.int64], NDArray[np.float64]]
Floats = NDArray[np.float64]


def arrivals(
    workload: Workload, producer: int, rng: np.random.Generator, recording: Recording | None = None
) -> Iterator[Chunk]:
    """Yield the numbers and the times, in seconds since the run's beginning, of the requests that ``producer`` sends.

    Times ascend and are below ``warm_up + seconds``. Numbers are unique over all producers; of constant, recorded and
    backlog arrivals they are 0, 1, 2, ... over the whole workload. ``recording`` is that of Recorded arrivals. Raises
    WorkloadError when it ends before the run does.
    """
    whole_s = workload.warm_up + workload.seconds
    match workload.arrivals:
        case Backlog(requests=count):
            for numbers in _numbers(producer, workload.producers, count):
                yield numbers, np.zeros(len(numbers))
        case Constant(rate=rate):
            yield from _evenly(rate, producer, workload.producers, whole_s)
        case Recorded() as recorded:
            if recording is None:
                raise TypeError("recorded arrivals need their recording")
            yield from _played(recorded, recording, producer, workload.producers, whole_s)
        case Poisson() | Burst() | Ramp() | Step() | Diurnal() as varying:
            times = _thinned(varying, workload, rng)
            first = producer
            for due in times:
                numbers = first + workload.producers * np.arange(len(due), dtype=np.int64)
                first += workload.producers * len(due)
                yield numbers, due


def rate_at(varying: Poisson | Burst | Ramp | Step | Diurnal, t: Floats, seconds: float) -> Floats:
    """Requests a second at ``t`` seconds after the warm-up of a run of ``seconds``; times before 0 count as 0."""
    t = np.maximum(t, 0.0)
    match varying:
        case Poisson(rate=rate):
            return np.full(len(t), rate)
        case Burst() as burst:
            from_middle = np.abs(t % burst.every - burst.every / 2)
            return np.where(from_middle < burst.burst_seconds / 2, burst.burst_rate, burst.rate)
        case Ramp(first=first, last=last):
            return first + (last - first) * t / seconds
        case Step(rates=rates):
            step = np.minimum(t * len(rates) / seconds, len(rates) - 1).astype(np.int64)
            return np.asarray(rates)[step]
        case Diurnal() as day:
            return day.lowest + (day.highest - day.lowest) * (1 - np.cos(2 * np.pi * t / day.period)) / 2


def highest_rate(varying: Poisson | Burst | Ramp | Step | Diurnal) -> float:
    """The rate that :func:`rate_at` never exceeds."""
    match varying:
        case Poisson(rate=rate):
            return rate
        case Burst() as burst:
            return max(burst.rate, burst.burst_rate)
        case Ramp(first=first, last=last):
            return max(first, last)
        case Step(rates=rates):
            return max(rates)
        case Diurnal(highest=highest):
            return highest


def _thinned(
    varying: Poisson | Burst | Ramp | Step | Diurnal, workload: Workload, rng: np.random.Generator
) -> Iterator[Floats]:
    most = highest_rate(varying)
    mean_gap = workload.producers / most
    end = workload.warm_up + workload.seconds
    now = 0.0
    while now < end:
        candidates = now + np.cumsum(rng.exponential(mean_gap, CHUNK))
        now = float(candidates[-1])
        rates = rate_at(varying, candidates - workload.warm_up, workload.seconds)
        kept = candidates[(rng.random(CHUNK) * most < rates) & (candidates < end)]
        if len(kept):
            yield kept


def _numbers(producer: int, producers: int, end: int) -> Iterator[NDArray[np.int64]]:
    for first in range(producer, end, producers * CHUNK):
        yield np.arange(first, min(end, first + producers * CHUNK), producers, dtype=np.int64)


def _evenly(rate: float, producer: int, producers: int, whole_s: float) -> Iterator[Chunk]:
    # One more than there can be: the comparison of times decides, not the rounding of the product.
    for numbers in _numbers(producer, producers, int(rate * whole_s) + 2):
        due = numbers / rate
        inside = due < whole_s
        if inside.any():
            yield numbers[inside], due[inside]


def _played(recorded: Recorded, recording: Recording, producer: int, producers: int, whole_s: float) -> Iterator[Chunk]:
    due = recording.at / recorded.speed
    if due[-1] < whole_s * SPAN:
        raise WorkloadError(
            f"{recorded.path} ends after {due[-1]:.1f} s at speed {recorded.speed:g}, and the run takes {whole_s:g} s "
            "with its warm-up. Make seconds or warm_up smaller, or record for longer."
        )
    for numbers in _numbers(producer, producers, int(np.searchsorted(due, whole_s))):
        yield numbers, due[numbers]


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


Numbers = NDArray[np.int64]


def values_of(
    workload: Workload, texts: Sequence[str], rng: np.random.Generator, *, ids: bool
) -> Callable[[Numbers], list[bytes]]:
    """Return the function from requests' numbers to their values. Raises WorkloadError for a text that can't be
    encoded.
    """
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
    # Also when ids make all values different, because it finds texts that can't be sent before the run begins.
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
            return lambda numbers: recorded_sizes(recording, numbers, rng, same=same)


def recorded_sizes(recording: Recording, numbers: Numbers, rng: np.random.Generator, *, same: bool) -> Numbers:
    """Return the lengths of the arrivals ``numbers`` of the ``same`` recording, else lengths drawn from it."""
    return recording.sizes[numbers if same else rng.integers(0, len(recording.sizes), len(numbers))]


def _encoded(text: str, kind: str, number: int | None) -> bytes:
    request = ClassifyRequest(text=text, id=None if number is None else str(number))
    try:
        return encode_request(request, kind)
    except WireError as error:
        raise WorkloadError(
            f"A text of this workload can't be sent: {error}. Set [lengths] with a bound, or leave that text out."
        ) from error


# Each part draws from a random stream of its own, so that changing one part leaves the others as they were.
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
    """Yield the requests of ``producer``, from 0 to ``workload.producers`` - 1, in the order of their time.

    The same arguments give the same requests. With ``ids`` a good request's id is its number. Raises WorkloadError for
    a recording that can't be used, and for a text that no request can hold.
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
