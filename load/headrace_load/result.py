"""The progress of a run, its result as one JSON document, and the differences of results with their intervals.

Times are in milliseconds unless a name says otherwise. Contenders run in turn, round by round, so that a drift of the
machine affects all of them. Differences are between paired rounds, by Student's t over the logarithms of their ratios.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct
from scipy import stats

from headrace_load.contender import Contender
from headrace_load.measure.audit import Audit
from headrace_load.workload.spec import Workload


class Progress(Struct, frozen=True, kw_only=True):
    """A moment of a run, about once a second. Counts are of the whole run so far, warm-up included.

    ``elapsed_s`` is since the run's beginning, of ``whole_s``, its planned length in seconds, warm-up included; a
    backlog has no planned length, so there ``whole_s`` is None and the bar is of ``answered`` among ``requests``.
    ``late_p99_ms`` is how much later than due the harness sent, None before anything was sent; ``answered`` is None
    while nobody reads answers (a workload that reads ``after``). ``phase`` is one word: starting, warm-up,
    publishing, measuring, settling, reading.
    """

    phase: str
    elapsed_s: float
    whole_s: float | None
    requests: int | None
    """How many there will be, if known."""
    due: int
    sent: int
    acked: int
    answered: int | None
    late_p99_ms: float | None

    @property
    def lag(self) -> int | None:
        """Requests that are acknowledged and not answered yet."""
        return None if self.answered is None else max(0, self.acked - self.answered)


FORMAT = "headrace-load/1"


class Latency(Struct, frozen=True, kw_only=True):
    """Counted from when a request was due to be sent. ``histogram`` is HdrHistogram's V2 encoding, in microseconds."""

    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    p999: float
    max: float
    histogram: str


class Second(Struct, frozen=True, kw_only=True):
    """One second of the run by when requests were due; ``answered`` by when answers were appended.

    ``lag`` counts requests that were acknowledged and not answered at the end of the second. Latencies are to the
    append.
    """

    second: int
    due: int
    sent: int
    answered: int
    lag: int
    p50: float | None
    p99: float | None
    max: float | None
    rss_mb: dict[str, float] = {}
    """Of workers, broker and harness."""


class Stage(Struct, frozen=True, kw_only=True):
    """The mean time of a request in one stage, in the order of its way.

    The stages: producing, kafka, gathering, model, publishing, reading; "other" is the rest of the whole.
    """

    name: str
    mean: float
    share: float


class Used(Struct, frozen=True, kw_only=True):
    """What workers, broker or harness used while requests were answered. All are 0 without processes.

    ``start_cpu_s``, of the workers of a drain, is the part of ``cpu_s`` before their first answer.
    """

    cpu_s: float
    cpu_s_per_100k: float
    rss_mb: float
    rss_mb_most: float
    start_cpu_s: float = 0.0


class Lateness(Struct, frozen=True, kw_only=True):
    """How much later than due the harness sent requests, and the fraction that was later than the workload allows."""

    p50: float
    p99: float
    max: float
    late: float


class Machine(Struct, frozen=True, kw_only=True):
    """Where it ran. ``commit`` is None outside a checkout; it ends in "+" when files were changed."""

    cpus: int
    processor: str
    memory_gb: float
    system: str
    python: str
    commit: str | None
    versions: dict[str, str]
    """Of headrace, aiokafka, msgspec, numpy, numba, uvloop and the broker."""


class Result(Struct, frozen=True, kw_only=True, tag=FORMAT, tag_field="format"):
    """One run of one workload against one contender.

    ``contender`` is None for workers that somebody else runs. ``refused`` says why there is no verdict: the producers
    were the bottleneck, or the audit failed. It is None when the figures stand. ``append_clock`` says whose time stamps
    the answers have: the broker's ("append"), or the worker's when it handed them over ("create").
    """

    name: str
    contender: Contender | None
    workload: Workload
    machine: Machine
    begun_at: str
    seconds: float
    """Of the measured part; of a backlog, from the append of the first answer to that of the last."""
    published: int
    answered: int
    rate: float
    """Answers a second."""
    goodput: float
    """`ok` answers a second."""
    refused: str | None
    append_clock: str
    to_append: Latency | None
    to_reader: Latency | None
    lateness: Lateness | None
    stages: tuple[Stage, ...]
    batch_sizes: dict[str, int]
    """Batches by upper bound of their size, as the workers count them."""
    timeline: tuple[Second, ...]
    used: dict[str, Used]
    """Of "workers", "broker" and "harness"."""
    audit: Audit
    notes: tuple[str, ...] = ()
    first_answer_s: float | None = None
    """Of a drain: from the start of the contender's processes to the append of the first answer."""

    def shown(self) -> tuple[Second, ...]:
        """The timeline without a last, incomplete second.

        The figures of a part of a second would look like a drop.
        """
        last = self.timeline[-1:]
        partial = len(self.timeline) > 1 and last[0].second + 1 > self.seconds
        return self.timeline[:-1] if partial else self.timeline

    def measured(self) -> tuple[Second, ...]:
        """The timeline without the seconds after the run, in which it waited for the last answers."""
        return tuple(one for one in self.timeline if one.second < self.seconds)


class Difference(Struct, frozen=True, kw_only=True):
    """How a figure of ``b`` differs from that of ``a``: the ratio b / a with its confidence interval.

    From paired runs in turn: Student's t over the logarithms of the rounds' ratios.
    """

    figure: str
    a: float
    b: float
    ratio: float
    low: float
    high: float
    confidence: float
    rounds: int


class Comparison(Struct, frozen=True, kw_only=True, tag="headrace-load/comparison/1", tag_field="format"):
    """Alternating runs of one workload against several contenders; differences are of each against the first."""

    results: dict[str, tuple[Result, ...]]
    differences: dict[str, tuple[Difference, ...]]


class ResultError(ValueError):
    """A file is no result; the message names it and says what it is instead."""


def write(document: Struct, path: Path) -> None:
    """Write a result, or a command's summary of several, as indented JSON."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")


def read(path: Path) -> Result | Comparison:
    """Read what :func:`write` wrote. Raises ResultError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Result | Comparison)
    except (OSError, msgspec.DecodeError) as error:
        raise ResultError(f"{path} is no result of headrace-load: {error}") from error


T = TypeVar("T")


def turns(names: Sequence[str], rounds: int) -> list[tuple[int, str]]:
    """The runs in their order as (round, name): round 0 warms up, and each round begins with another contender.

    >>> turns(["a", "b"], 2)
    [(0, 'a'), (0, 'b'), (1, 'b'), (1, 'a'), (2, 'a'), (2, 'b')]
    """
    return [
        (number, names[(number + place) % len(names)]) for number in range(rounds + 1) for place in range(len(names))
    ]


async def alternating(
    names: Sequence[str], rounds: int, one: Callable[[int, str], Awaitable[T]]
) -> dict[str, tuple[T, ...]]:
    """Run ``one`` (round, name) in turn. Returns the results of the rounds that count, by name, without round 0."""
    found: dict[str, list[T]] = {name: [] for name in names}
    for number, name in turns(names, rounds):
        result = await one(number, name)
        if number:
            found[name].append(result)
    return {name: tuple(results) for name, results in found.items()}


CONFIDENCE = 0.95


def difference(figure: str, a: Sequence[float], b: Sequence[float], confidence: float = CONFIDENCE) -> Difference:
    """How ``b`` differs from ``a``. Values at the same index belong to the same round; all are above zero.

    The ratio is the geometric mean of the rounds' ratios. Its interval is that of the mean of their logarithms, which
    a ratio and its inverse share, by Student's t with rounds - 1 degrees of freedom. ``a`` and ``b`` of the Difference
    are medians. Raises ValueError for fewer than two rounds, or for values that have no logarithm.
    """
    if len(a) != len(b) or len(a) < 2:
        raise ValueError(f"{figure}: an interval needs two rounds of each contender; got {len(a)} and {len(b)}")
    if min(*a, *b) <= 0:
        raise ValueError(f"{figure}: ratios need values above zero")
    logs = [math.log(one / other) for one, other in zip(b, a, strict=True)]
    mean = statistics.fmean(logs)
    margin = float(stats.t.ppf((1 + confidence) / 2, len(logs) - 1)) * statistics.stdev(logs) / math.sqrt(len(logs))
    return Difference(
        figure=figure,
        a=statistics.median(a),
        b=statistics.median(b),
        ratio=math.exp(mean),
        low=math.exp(mean - margin),
        high=math.exp(mean + margin),
        confidence=confidence,
        rounds=len(logs),
    )


def _of_latency(figure: str) -> Callable[[Result], float | None]:
    def find(result: Result) -> float | None:
        latency: Latency | None = result.to_append
        return None if latency is None else float(getattr(latency, figure))

    return find


def _of_workers(figure: str) -> Callable[[Result], float | None]:
    def find(result: Result) -> float | None:
        used = result.used.get("workers")
        return None if used is None else float(getattr(used, figure))

    return find


FIGURES: dict[str, Callable[[Result], float | None]] = {
    "rate": lambda result: result.rate,
    "p50": _of_latency("p50"),
    "p99": _of_latency("p99"),
    "cpu_s_per_100k": _of_workers("cpu_s_per_100k"),
    "rss_mb_most": _of_workers("rss_mb_most"),
}
"""What is compared: answers a second, ms from due to append, and CPU seconds and memory of the workers."""


def differences(results: Mapping[str, Sequence[Result]]) -> dict[str, tuple[Difference, ...]]:
    """Each contender against the first, figure by figure.

    A figure that a run does not have is left out. Fewer than two rounds give no differences. Figures of refused runs
    count, because they were measured; the run itself says that it was refused.
    """
    first, *others = results
    return {other: tuple(_known(results[first], results[other])) for other in others}


def _known(a: Sequence[Result], b: Sequence[Result]) -> list[Difference]:
    found = []
    for figure, value in FIGURES.items():
        of_a, of_b = [[number for one in runs if (number := value(one))] for runs in (a, b)]
        if len(of_a) == len(a) == len(of_b) == len(b) >= 2:
            found.append(difference(figure, of_a, of_b))
    return found
