"""What one run left behind, before it is judged.

From what a run left behind to its result.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from headrace_load.audit import Audit, audited
from headrace_load.contender import Contender, masked
from headrace_load.measure.columns import STATUSES, Answers, join
from headrace_load.measure.latency import Sample, latency, lateness, timeline, too_late
from headrace_load.measure.machine import machine
from headrace_load.measure.stages import Scraped, batch_sizes, stages
from headrace_load.result import Lateness, Result, Stage, Used
from headrace_load.workload.spec import Backlog, Workload


class Gathered(Struct, frozen=True, kw_only=True):
    """Rows of columns.SENT and columns.ANSWERED, and what else was looked at. Times in microseconds."""

    sent: NDArray[np.void]
    answered: NDArray[np.void]
    answers: Answers
    records: int
    """How many the results hold since the run began, repeats included."""
    begin_us: int
    """Of the measured part."""
    complete: bool
    """Whether the producers sent all that was due."""
    append_clock: str
    metrics: Scraped
    """What the workers' metrics grew by."""
    used: dict[str, Used]
    samples: Sequence[Sample]
    notes: tuple[str, ...] = ()


def to_be_answered(sent: NDArray[np.void], answers: Answers) -> NDArray[np.bool_]:
    """Which requests must be answered: those acknowledged, and of rubbish only headrace answers `failed`."""
    acknowledged: NDArray[np.bool_] = sent["acked_us"] >= 0
    return acknowledged if answers == "log" else acknowledged & sent["good"]


HALF_MS_US = 500
"""A record's timestamp is cut to whole milliseconds, so the append was half a millisecond later in the mean."""
_OK = STATUSES.index("ok")


def judged(workload: Workload, contender: Contender | None, name: str, found: Gathered) -> Result:
    """The result of a run. Requests of the warm-up are in the audit and in nothing else."""
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
        # Requests of a backlog wait for the contender's start: there is no whole to share.
        stages=() if backlog else _stages(found, first, waits_us),
        batch_sizes=batch_sizes(found.metrics),
        timeline=timeline(sent, first, answered, waits_us, found.begin_us, found.samples),
        used=found.used,
        audit=audit,
        notes=found.notes,
    )


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


def _stages(found: Gathered, first: NDArray[np.int64], waits_us: NDArray[np.int64]) -> tuple[Stage, ...]:
    """The stages of all that was answered in the measured part, whenever it was due, as the workers count them.

    ``waits_us`` is of the requests that have an answer, to its append.
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
