"""From the rows of a run to its result: latencies, the run by seconds, stages, and whether the figures stand.

Latencies are kept as an HdrHistogram: three digits of each in bounded memory, in the encoding that other HdrHistogram
tools read. If the producers did not keep to their times, the run gets no verdict, because it shows nothing about the
contender.

Stages combine the sums of the workers' /metrics with the harness's own measurements. A record's timestamp is the moment
when the harness sent it, so the stages follow each other: "producing" ends where "kafka" begins, which is the way to
the broker, the wait there and the fetch. "publishing" ends when the worker knows of the append, a little after the
append, and the workers' sums include requests that were on their way at either end. So the sum of the stages can exceed
the whole. Then nothing is left for "other", and the shares are fractions of the sum.
"""

from __future__ import annotations

import asyncio
import urllib.request
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
from hdrh.histogram import HdrHistogram
from msgspec import Struct
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from headrace_load.contender import Contender, masked
from headrace_load.measure.audit import STATUSES, Answers, Audit, Columns, audited, join
from headrace_load.measure.machine import Sample, machine
from headrace_load.result import Latency, Lateness, Result, Second, Stage, Used
from headrace_load.workload.spec import Backlog, Workload

HIGHEST_US = 24 * 3600 * 1_000_000
DIGITS = 3
_EXACT_BITS = 11  # three digits need 2048 steps; what is longer is kept to its first eleven bits


def latency(waits_us: NDArray[np.int64]) -> Latency | None:
    """Percentiles in milliseconds of waits in microseconds; None for no waits. Mean and maximum are exact.

    A wait below a microsecond, which clocks of whole milliseconds can give, counts as one.
    """
    if not len(waits_us):
        return None
    histogram = HdrHistogram(1, HIGHEST_US, DIGITS)
    for value, count in zip(*np.unique(_steps(waits_us), return_counts=True), strict=True):
        histogram.record_value(int(value), int(count))
    p50, p90, p99, p999 = (histogram.get_value_at_percentile(p) / 1000 for p in (50, 90, 99, 99.9))
    return Latency(
        count=len(waits_us),
        mean=float(waits_us.mean()) / 1000,
        p50=p50,
        p90=p90,
        p99=p99,
        p999=p999,
        max=float(waits_us.max()) / 1000,
        histogram=histogram.encode().decode("ascii"),
    )


def _steps(waits_us: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each wait rounded down to the histogram's precision, so that few different values are recorded."""
    waits = np.clip(waits_us, 1, HIGHEST_US)
    bits = np.frexp(waits.astype(np.float64))[1]
    shift = np.maximum(bits - _EXACT_BITS, 0)
    steps: NDArray[np.int64] = (waits >> shift) << shift
    return steps


MOST_LATE = 0.01


def lateness(late_us: NDArray[np.int64], allowed_ms: float) -> Lateness | None:
    """How much later than due requests were sent, in milliseconds; None if none was sent."""
    if not len(late_us):
        return None
    p50, p99 = np.percentile(late_us, (50, 99)) / 1000
    return Lateness(
        p50=float(p50),
        p99=float(p99),
        max=float(late_us.max()) / 1000,
        late=float((late_us > allowed_ms * 1000).mean()),
    )


def too_late(found: Lateness | None, allowed_ms: float, *, complete: bool) -> str | None:
    """Why there is no verdict; None when the producers kept to their times. ``complete``: they sent all requests."""
    if complete and (found is None or found.late <= MOST_LATE):
        return None
    share = "" if found is None else f"{found.late:.1%} of their requests were sent more than {allowed_ms:g} ms late"
    unsent = "" if complete else "they could not send all that was due"
    said = " and ".join(filter(None, (share, unsent)))
    return f"the producers were late: {said}. Use more producers, another machine for them, or a lower rate."


MOST_SECONDS = 24 * 3600


def timeline(
    sent: Columns,
    first: NDArray[np.int64],
    answered: Columns,
    waits_us: NDArray[np.int64],
    begin_us: int,
    samples: Sequence[Sample],
) -> tuple[Second, ...]:
    """Columns for each second from ``begin_us`` to the last answer or request.

    ``first`` is each request's answer in ``answered``, -1 without one; ``waits_us`` are the waits of the answered
    requests. Requests from before ``begin_us`` count if they are on their way, or answered, after it.
    """
    has = first >= 0
    appended = answered["appended_us"][first[has]]
    times = [sent["due_us"], appended]
    end_us = max((int(column.max()) for column in times if len(column)), default=begin_us)
    count = min((end_us - begin_us) // 1_000_000 + 1, MOST_SECONDS)

    def counts(column: NDArray[np.int64]) -> NDArray[np.int64]:
        seconds = (column - begin_us) // 1_000_000
        return np.bincount(seconds[(seconds >= 0) & (seconds < count)], minlength=count)

    def until(column: NDArray[np.int64]) -> NDArray[np.int64]:
        ends = begin_us + 1_000_000 * np.arange(1, count + 1)
        return np.searchsorted(np.sort(column), ends)

    due, gone, back = counts(sent["due_us"]), counts(sent["sent_us"]), counts(appended)
    lag = until(sent["acked_us"][sent["acked_us"] >= 0]) - until(appended)
    waits = _by_second((sent["due_us"][has] - begin_us) // 1_000_000, waits_us, count)
    memory = {(at_us - begin_us) // 1_000_000: used for at_us, used in samples}
    return tuple(
        Second(
            second=number,
            due=int(due[number]),
            sent=int(gone[number]),
            answered=int(back[number]),
            lag=max(0, int(lag[number])),
            p50=_ms(waits[number], 50),
            p99=_ms(waits[number], 99),
            max=_ms(waits[number], 100),
            rss_mb=memory.get(number, {}),
        )
        for number in range(count)
    )


def _by_second(seconds: NDArray[np.int64], values: NDArray[np.int64], count: int) -> list[NDArray[np.int64]]:
    order = np.argsort(seconds, kind="stable")
    edges = np.searchsorted(seconds[order], np.arange(count + 1))
    return [values[order[start:end]] for start, end in pairwise(edges)]


def _ms(waits_us: NDArray[np.int64], percent: float) -> float | None:
    return float(np.percentile(waits_us, percent)) / 1000 if len(waits_us) else None


TIMEOUT_S = 5.0
Scraped = Mapping[tuple[str, str], float]
"""Sums over all workers, by a sample's name and its label's value ("" without one)."""

_KAFKA = ("headrace_in_kafka_seconds_sum", "")
_SECONDS = "headrace_request_seconds_total"
_ANSWERS = "headrace_answers_total"
_SIZES = "headrace_batch_size_bucket"
IN_WORKER = ("gathering", "model", "publishing")


async def scrape(urls: Sequence[str]) -> Scraped:
    """Read the metrics of all workers. Raises OSError, which names the address, when one does not answer."""
    return _summed(await asyncio.gather(*(asyncio.to_thread(_read, url) for url in urls)))


def _read(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise OSError(f"{url} is no address of metrics; write it as http://host:port/metrics")
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310 - the scheme is checked above
            text: str = answer.read().decode()
            return text
    except OSError as error:
        raise OSError(f"{url} gives no metrics: {error}") from error


def _summed(texts: Sequence[str]) -> Scraped:
    found: defaultdict[tuple[str, str], float] = defaultdict(float)
    for text in texts:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found[sample.name, next(iter(sample.labels.values()), "")] += sample.value
    return found


def grown(before: Scraped, after: Scraped) -> Scraped:
    """The growth in between; a new worker counts from 0."""
    return {name: value - before.get(name, 0.0) for name, value in after.items()}


def stages(whole: float, producing: float, reading: float | None, metrics: Scraped) -> tuple[Stage, ...]:
    """The mean milliseconds of a request in each stage, and the rest of the ``whole``.

    ``producing`` is from due to sent, ``reading`` from the append of the answer to its arrival (None: nobody read).
    Without metrics of a worker all the time between them is in "other".
    """
    answers = sum(value for (name, _), value in metrics.items() if name == _ANSWERS)
    means = {"producing": producing}
    if answers:
        means["kafka"] = metrics.get(_KAFKA, 0.0) / answers * 1000
        for stage in IN_WORKER:
            if (_SECONDS, stage) in metrics:
                means[stage] = metrics[_SECONDS, stage] / answers * 1000
    if reading is not None:
        means["reading"] = reading
    told = sum(means.values())
    means["other"] = max(0.0, whole - told)
    of = max(whole, told)
    return tuple(Stage(name=name, mean=mean, share=mean / of if of else 0.0) for name, mean in means.items())


def batch_sizes(metrics: Scraped) -> dict[str, int]:
    """Batches by the upper bound of their size, without empty bounds; the metrics count cumulatively."""
    bounds = sorted((float(bound), count) for (name, bound), count in metrics.items() if name == _SIZES)
    below = 0.0
    found: dict[str, int] = {}
    for bound, count in bounds:
        if count > below:
            found[f"{bound:g}"] = round(count - below)
        below = count
    return found


class Measurements(Struct, frozen=True, kw_only=True):
    """Rows of audit.SENT and audit.ANSWERED, and the other measurements. Times in microseconds."""

    sent: NDArray[np.void]
    answered: NDArray[np.void]
    answers: Answers
    records: int
    """How many answers the results got since the run began, repeats included."""
    begin_us: int
    """Of the measured part."""
    complete: bool
    """Whether the producers sent all requests that were due."""
    append_clock: str
    metrics: Scraped
    """The growth of the workers' metrics."""
    used: dict[str, Used]
    samples: Sequence[Sample]
    notes: tuple[str, ...] = ()
    started_us: int | None = None
    """When the contender's processes were started, of a drain."""


HALF_MS_US = 500
"""A record's timestamp is rounded down to whole milliseconds, so the append was half a millisecond later in the
mean.
"""
_OK = STATUSES.index("ok")


def evaluate(workload: Workload, contender: Contender | None, name: str, found: Measurements) -> Result:
    """The result of a run. Requests of the warm-up count only in the audit."""
    backlog = isinstance(workload.arrivals, Backlog)
    sent, answered = found.sent, found.answered
    first = join(sent, answered, found.answers)
    audit = audited(sent, answered, found.answers, records=found.records)
    counts = np.ones(len(sent), dtype=np.bool_) if backlog else sent["due_us"] >= found.begin_us
    has, place = first >= 0, first[first >= 0]
    waits_us = answered["appended_us"][place] + HALF_MS_US - sent["due_us"][has]
    measured, place = has & counts, first[has & counts]
    arrived_us, to_append = answered["arrived_us"][place], waits_us[counts[has]]
    read_live = bool(len(arrived_us)) and not backlog and bool((arrived_us >= 0).all())
    seconds = audit.seconds if backlog else workload.seconds
    in_time = _in_time(answered[first[has]], found.begin_us, seconds, backlog=backlog)
    late = None if backlog else lateness(_late(sent, counts), workload.lateness_ms)
    return Result(
        name=name,
        contender=None if contender is None else masked(contender),
        workload=workload,
        machine=machine(),
        begun_at=datetime.fromtimestamp(found.begin_us / 1e6, UTC).isoformat(timespec="milliseconds"),
        seconds=seconds,
        published=int((counts & (sent["acked_us"] >= 0)).sum()),
        answered=int(measured.sum()),
        rate=len(in_time) / seconds if seconds else 0.0,
        goodput=int((in_time["status"] == _OK).sum()) / seconds if seconds else 0.0,
        refused=_refused(late, audit, workload, complete=found.complete),
        append_clock=found.append_clock,
        to_append=None if backlog else latency(to_append),
        to_reader=latency(arrived_us - sent["due_us"][measured]) if read_live else None,
        lateness=late,
        # Requests of a backlog wait for the contender's start, so their latency has no meaning.
        stages=() if backlog else _stages(found, first, waits_us),
        batch_sizes=batch_sizes(found.metrics),
        timeline=timeline(sent, first, answered, waits_us, found.begin_us, found.samples),
        used=found.used,
        audit=audit,
        notes=found.notes,
        first_answer_s=_first_answer_s(answered, found.started_us),
    )


def _first_answer_s(answered: NDArray[np.void], started_us: int | None) -> float | None:
    if started_us is None or not len(answered):
        return None
    return float(answered["appended_us"].min() + HALF_MS_US - started_us) / 1e6


def _late(sent: NDArray[np.void], counts: NDArray[np.bool_]) -> NDArray[np.int64]:
    late: NDArray[np.int64] = (sent["sent_us"] - sent["due_us"])[counts]
    return late


def _in_time(answers: NDArray[np.void], begin_us: int, seconds: float, *, backlog: bool) -> NDArray[np.void]:
    """The answers that were appended in the measured part, whenever their requests were due."""
    appended_us = answers["appended_us"]
    within = (appended_us >= begin_us) & (appended_us < begin_us + int(seconds * 1e6))
    return answers if backlog else answers[within]


def _refused(late: Lateness | None, audit: Audit, workload: Workload, *, complete: bool) -> str | None:
    reasons = [
        None if audit.kept else f"the audit failed: {audit.line()}",
        too_late(late, workload.lateness_ms, complete=complete),
        None if audit.answered else "nothing was answered.",
    ]
    return " ".join(filter(None, reasons)) or None


def _stages(found: Measurements, first: NDArray[np.int64], waits_us: NDArray[np.int64]) -> tuple[Stage, ...]:
    """The stages of all requests that were answered in the measured part, whenever they were due, as the workers count.

    ``waits_us`` are the waits of answered requests up to the append of the answer.
    """
    has, place = first >= 0, first[first >= 0]
    within = found.answered["appended_us"][place] >= found.begin_us
    sent, answered, waits_us = found.sent[has][within], found.answered[place[within]], waits_us[within]
    if not len(answered):
        return ()
    producing = float((sent["sent_us"] - sent["due_us"]).mean()) / 1000
    whole, reading = float(waits_us.mean()) / 1000, None
    if (answered["arrived_us"] >= 0).all():
        reading = float((answered["arrived_us"] - answered["appended_us"] - HALF_MS_US).mean()) / 1000
    return stages(whole + (reading or 0.0), producing, reading, found.metrics)
