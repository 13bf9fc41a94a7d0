"""What looks wrong, and the command that mends it: rules over what was seen, without I/O."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import msgspec

from headrace.core.text import quantity

if TYPE_CHECKING:
    from headrace.sight.status import Status


class Level(enum.StrEnum):
    """How bad a finding is. An ``error`` keeps something from working, a ``warning`` will or may."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that was looked at: ``check`` names it for programs, ``says`` is for people, ``mend`` what mends it."""

    check: str
    level: Level
    says: str
    mend: str | None = None


def worst(findings: Iterable[Finding]) -> Level:
    """The worst level among ``findings``, OK without any."""
    order = list(Level)
    return max((one.level for one in findings), key=order.index, default=Level.OK)


LATE_S = 10.0
"""The objective of deploy/prometheus: no waiting request should be older."""
SWAP_MS = 60_000
"""After an alias has moved so long ago, no worker should answer by another version any more."""
HOT = 0.8
FEW = 1000
"""Fewer requests that wait don't tell whether one partition has most of them."""


def findings_of(status: Status) -> tuple[Finding, ...]:
    """What looks wrong in ``status``, the worst first."""
    if status.away is not None:
        return (Finding("kafka", Level.ERROR, f"Kafka does not answer: {status.away}", "headrace doctor"),)
    found = [
        *_unknown(status),
        *_topics(status),
        *_workers(status),
        *_versions(status),
        *_letters(status),
        *_learning(status),
    ]
    order = list(Level)
    return tuple(sorted(found, key=lambda one: -order.index(one.level)))


def _unknown(status: Status) -> Iterator[Finding]:
    for part, why in status.unknown.items():
        yield Finding(f"unknown.{part}", Level.WARNING, f"Nothing is known of the {part}: {why}", "headrace doctor")


def _topics(status: Status) -> Iterator[Finding]:
    if status.missing:
        are = "are no topics" if len(status.missing) > 1 else "is no topic"
        yield Finding(
            "topics.missing", Level.ERROR, f"There {are} {', '.join(status.missing)}.", "headrace topics apply"
        )
    if status.unanswerable:
        lacking = quantity(status.unanswerable, "partition")
        yield Finding(
            "topics.partitions",
            Level.ERROR,
            f"The results topic lacks {lacking} that the requests topic has; nobody answers the requests there.",
            "headrace topics apply --grow",
        )


def _workers(status: Status) -> Iterator[Finding]:
    workers = next((group for group in status.groups if group.role == "workers"), None)
    waiting = quantity(status.lag or 0, "request")
    if workers is not None and not workers.members:
        level, more = (Level.ERROR, f"and {waiting} wait") if status.lag else (Level.WARNING, "and nothing waits yet")
        yield Finding("workers.none", level, f"No worker is in the group {workers.name}, {more}.", "headrace worker")
        return
    if not status.lag:
        return
    late = status.lag_s is not None and status.lag_s > LATE_S
    silent_s = _silent_s(status)
    if late and silent_s is not None:
        yield Finding(
            "workers.stuck",
            Level.ERROR,
            f"{waiting} wait, and no answer came for {silent_s:,.0f} s. The log of the workers says why.",
            "curl -s http://127.0.0.1:9464/readyz    # on a worker's machine",
        )
    elif late:
        members, partitions = len(workers.members) if workers is not None else 0, len(status.partitions)
        said = f"The oldest of {waiting} that wait is {status.lag_s:,.0f} s old."
        if not members or members < partitions:
            yield Finding("workers.late", Level.WARNING, f"{said} More workers answer more.", "headrace worker")
        else:
            said = f"{said} Each partition has a worker of its own: more workers need more partitions."
            yield Finding("workers.late", Level.WARNING, said, "headrace topics apply --grow --partitions N")
    lags = [one.lag for one in status.partitions]
    if len(lags) > 1 and sum(lags) >= FEW and max(lags) > HOT * sum(lags):
        hot = max(status.partitions, key=lambda one: one.lag)
        yield Finding(
            "workers.hot",
            Level.WARNING,
            f"Partition {hot.partition} has {hot.lag:,} of the {sum(lags):,} that wait: many requests share a key.",
            "docs/runbook.md#headracerequestslate",
        )


def _silent_s(status: Status) -> float | None:
    """For how long no partition has got an answer, at least; None where that is no longer than LATE_S."""
    answered = [one.answered_ms for one in status.partitions if one.answered_ms is not None]
    if not answered:
        return 60.0 if status.answers_s == 0 else None
    silent_s = (status.at_ms - max(answered)) / 1000
    return silent_s if silent_s > LATE_S else None


def _versions(status: Status) -> Iterator[Finding]:
    if "versions" in status.unknown or status.missing or status.followed != "champion":
        return
    champion = next((one for one in status.aliases if one.alias == "champion"), None)
    if champion is None:
        said = f"Model {status.model} has no champion, so workers that follow it wait."
        if status.running:
            said += " Those that answer were started with a version or a file (--model)."
        yield Finding(
            "versions.champion",
            Level.WARNING if status.running else Level.ERROR,
            said,
            "headrace models publish FILE    # or: headrace models promote VERSION",
        )
        return
    if not champion.recorded:
        yield Finding(
            "versions.record",
            Level.ERROR,
            f"The champion is {champion.version}, of which there is no record.",
            "headrace models rollback",
        )
    late = [
        one.version
        for one in status.running
        if one.version != champion.version and one.answered_ms > champion.moved_ms + SWAP_MS
    ]
    if late:
        yield Finding(
            "versions.differ",
            Level.WARNING,
            f"Requests are answered by {', '.join(late)}, not by the champion {champion.version}.",
            f"headrace models show {champion.version}",
        )


def _letters(status: Status) -> Iterator[Finding]:
    if status.letters is not None and status.letters.last_hour:
        by = ", ".join(f"{count:,} {error}" for error, count in status.letters.by_error.items())
        yield Finding(
            "dead_letters",
            Level.WARNING,
            f"{quantity(status.letters.last_hour, 'dead letter')} in the last hour; of the last ones: {by}.",
            "headrace dead-letters list",
        )


def _learning(status: Status) -> Iterator[Finding]:
    training = status.training
    trainers = next((group for group in status.groups if group.role == "trainer"), None)
    if training is not None and training.state == "failed":
        yield Finding(
            "training.failed",
            Level.WARNING,
            f"The last training failed: {training.error or 'no reason is recorded'}",
            "headrace models train --now --wait",
        )
    if training is not None and training.state == "running" and trainers is not None and not trainers.members:
        yield Finding(
            "training.left", Level.WARNING, "A training is under way, and no trainer is there.", "headrace trainer"
        )
    for labeller in status.labellers:
        if labeller.stopped:
            yield Finding(
                "labeller.stopped",
                Level.WARNING,
                f"The labeller has stopped: {labeller.reason or 'no reason is recorded'}",
                "headrace labeller --resume",
            )
