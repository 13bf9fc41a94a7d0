"""A run's progress, and its result as one JSON document. Times in milliseconds unless a name says otherwise."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

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
    """How many there will be, where it is known."""
    due: int
    sent: int
    acked: int
    answered: int | None
    late_p99_ms: float | None

    @property
    def lag(self) -> int | None:
        """Acknowledged and not answered yet."""
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

    ``lag`` is what was acknowledged and not yet answered at its end; latencies are to the append.
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

    producing, kafka, gathering, model, publishing, reading; "other" is what the parts leave of the whole.
    """

    name: str
    mean: float
    share: float


class Used(Struct, frozen=True, kw_only=True):
    """What one of workers, broker and harness used while requests were answered. Without processes: zeros.

    ``start_cpu_s`` of a drain's workers is what of ``cpu_s`` they had used when their first answer was seen.
    """

    cpu_s: float
    cpu_s_per_100k: float
    rss_mb: float
    rss_mb_most: float
    start_cpu_s: float = 0.0


class Lateness(Struct, frozen=True, kw_only=True):
    """How much later than due the harness sent, and the share later than the workload allows."""

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
    were the bottleneck, or the audit failed; None when the figures stand. ``append_clock`` is whether answers' time
    stamps are the broker's ("append") or the worker's when it handed them over ("create").
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
    """Those of them that were `ok`, a second."""
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

    def shown(self) -> tuple[Second, ...]:
        """The timeline without a last second that the run ended within.

        What came of a part of a second would look as if nothing had been answered any more.
        """
        last = self.timeline[-1:]
        partial = len(self.timeline) > 1 and last[0].second + 1 > self.seconds
        return self.timeline[:-1] if partial else self.timeline

    def measured(self) -> tuple[Second, ...]:
        """The timeline without the seconds behind the run, in which its last answers were waited for."""
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
    """Write a result, or what a command makes of several, as indented JSON."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")


def read(path: Path) -> Result | Comparison:
    """Read what :func:`write` wrote. Raises ResultError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Result | Comparison)
    except (OSError, msgspec.DecodeError) as error:
        raise ResultError(f"{path} is no result of headrace-load: {error}") from error
