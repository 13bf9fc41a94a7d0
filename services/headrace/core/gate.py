"""The gate: whether a candidate takes the champion's place, from what was measured of both.

The candidate has seen newer labels, and has left out the texts that were erased. So it is promoted unless there is
something against it, and the burden of proof is shared between two limits on its macro-F1:

- what was seen: on the test rows it may be at most ``worse_by`` points below the champion;
- what can't be excluded: the lower end of the 95 % interval of that difference may be at most ``uncertain_by`` points
  below zero. That is a test of non-inferiority (D'Agostino, Massaro and Sullivan, Statistics in Medicine 22, 2003): a
  test split too small to tell is no reason to promote.

The difference is fair to both: a text is in the test split by its hash, so neither has been trained on it. A class that
the champion does not know counts as its mistake. Demanding a gain instead would keep a stale version for as long as the
labels only confirm it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import msgspec

from headrace_schemas.records import Check

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Points = Annotated[float, msgspec.Meta(ge=0)]
Positive = Annotated[float, msgspec.Meta(gt=0)]

LEAST_REPLAYED = 30
"""Requests below which a share of changed answers says nothing."""
_CLASSES_NAMED = 3

_UNNOTICED_US = 10.0
"""By so much a text may take longer in any case: of texts of few words a busy machine says no more than that."""


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a candidate has to keep to. Points are hundredths of macro-F1."""

    above_chance: Points = 5.0
    """Points of macro-F1 above what answers that ignore the text can reach."""
    worse_by: Points = 1.0
    """Points that macro-F1 may be below the champion's on the test rows, unless the interval says it may be chance."""
    uncertain_by: Points = 5.0
    """Points below the champion's that the 95 % interval may reach; a small test split makes it wide."""
    agreement: Share = 0.9
    """Least share of test rows that the compressed version answers as its fp32 original does."""
    max_bytes: Annotated[int, msgspec.Meta(gt=0)] = 64 << 20
    """Largest artifact."""
    max_latency_us: Positive = 1000.0
    """Longest mean time a text on one thread, in microseconds."""
    slower_by: Annotated[float, msgspec.Meta(ge=1)] = 2.0
    """Most times the champion's time a text, measured beside it."""
    max_changed: Share = 0.25
    """Largest share of the replayed requests whose answer may change."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Macro-F1 of both on the test rows, in [0, 1], and the 95 % interval of candidate less champion."""

    macro_f1: float
    champion_macro_f1: float
    low: float
    high: float

    @property
    def difference(self) -> float:
        """Candidate less champion."""
        return self.macro_f1 - self.champion_macro_f1


class ClassChange(msgspec.Struct, frozen=True):
    """Of ``requests`` that the champion answered ``label``, ``changed`` get another answer, mostly ``towards``."""

    label: str
    requests: int
    changed: int
    towards: str | None


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """The last real requests, answered by both. ``unreadable`` ones hold no text and were passed over."""

    requests: int
    changed: int
    unreadable: int
    classes: tuple[ClassChange, ...]


class Unmeasured(msgspec.Struct, frozen=True):
    """Something that should have been measured and could not be; why."""

    why: str


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of a candidate: on ``rows`` test rows of ``classes`` classes, and in use.

    ``comparison``, ``champion_latency_us`` and ``replay`` are None when there is no champion. ``agreement`` is the
    share of test rows that it answers as its fp32 original, ``latency_us`` microseconds a text, ``size`` bytes.
    """

    rows: int
    classes: int
    macro_f1: float
    agreement: float
    size: int
    latency_us: float
    champion: str | None = None
    comparison: Comparison | Unmeasured | None = None
    champion_latency_us: float | None = None
    replay: Replayed | Unmeasured | None = None


class Judgement(msgspec.Struct, frozen=True):
    """What the gate decides, with every check that it made and the reason in a sentence."""

    promoted: bool
    reason: str
    checks: tuple[Check, ...]


def judge(evidence: Evidence, limits: Limits) -> Judgement:
    """Make every check: a candidate that fails one is told about the others too. It is promoted when it fails none."""
    checks = tuple(_checks(evidence, limits))
    failed = [check.detail for check in checks if not check.passed]
    if failed:
        return Judgement(False, "; ".join(failed), checks)
    said = [check.detail for check in checks if check.name in ("macro-f1", "replay")]
    return Judgement(True, "; ".join(said) or f"the first version: {checks[0].detail}", checks)


def _checks(evidence: Evidence, limits: Limits) -> Iterator[Check]:
    yield _chance(evidence, limits)
    if evidence.champion is not None:
        yield from _against_champion(evidence.comparison, evidence, limits)
    yield Check(
        "agreement",
        evidence.agreement >= limits.agreement,
        evidence.agreement,
        limits.agreement,
        f"{evidence.agreement:.2%} of the test rows are answered as by the fp32 original, "
        f"at least {limits.agreement:.2%} must be",
    )
    yield Check(
        "size",
        evidence.size <= limits.max_bytes,
        evidence.size,
        limits.max_bytes,
        f"the artifact has {evidence.size / 1e6:.2f} MB, at most {limits.max_bytes / 1e6:.2f} MB are allowed",
    )
    yield from _latency(evidence, limits)
    if evidence.replay is not None:
        yield _replay(evidence.replay, limits)


def _chance(evidence: Evidence, limits: Limits) -> Check:
    """Answers that ignore the text, whether one class for all or drawn at random, reach a macro-F1 of 1 / classes."""
    if not evidence.rows:
        return Check("chance", False, 0.0, limits.above_chance / 100, "there is no test row to judge it by")
    limit = min(1 / evidence.classes + limits.above_chance / 100, 1.0)
    detail = (
        f"macro-F1 is {evidence.macro_f1:.4f} on {evidence.rows} test rows; "
        f"{limit:.4f} is {limits.above_chance:g} points above what can be had without reading the text"
    )
    return Check("chance", evidence.macro_f1 >= limit, evidence.macro_f1, limit, detail)


def _against_champion(
    comparison: Comparison | Unmeasured | None, evidence: Evidence, limits: Limits
) -> Iterator[Check]:
    if not isinstance(comparison, Comparison):
        why = "no reason is known" if comparison is None else comparison.why
        detail = f"it could not be compared with {evidence.champion} on the test rows: {why}"
        yield Check("macro-f1", False, 0.0, -limits.worse_by, detail)
        return
    points = 100 * comparison.difference
    interval = f"{100 * comparison.low:+.2f} to {100 * comparison.high:+.2f}"
    yield Check(
        "macro-f1",
        points >= -limits.worse_by or comparison.high > 0,
        points,
        -limits.worse_by,
        f"macro-F1 is {points:+.2f} points from {evidence.champion} (95 % interval {interval}, "
        f"{evidence.rows} test rows), more than {limits.worse_by:g} below are not allowed unless it may be chance",
    )
    low = 100 * comparison.low
    yield Check(
        "macro-f1-interval",
        low >= -limits.uncertain_by,
        low,
        -limits.uncertain_by,
        f"the 95 % interval of macro-F1 against {evidence.champion} begins at {low:+.2f} points on {evidence.rows} "
        f"test rows, and may begin at {-limits.uncertain_by:g}",
    )


def _latency(evidence: Evidence, limits: Limits) -> Iterator[Check]:
    took = evidence.latency_us
    yield Check(
        "latency",
        took <= limits.max_latency_us,
        took,
        limits.max_latency_us,
        f"a text takes {took:.1f} us, at most {limits.max_latency_us:g} us are allowed",
    )
    if evidence.champion_latency_us is not None:
        limit = max(limits.slower_by * evidence.champion_latency_us, evidence.champion_latency_us + _UNNOTICED_US)
        yield Check(
            "latency-against-champion",
            took <= limit,
            took,
            limit,
            f"a text takes {took:.1f} us and the champion {evidence.champion_latency_us:.1f} us, "
            f"at most {limits.slower_by:g} times as long or {_UNNOTICED_US:g} us more is allowed",
        )


def _replay(replay: Replayed | Unmeasured, limits: Limits) -> Check:
    if isinstance(replay, Unmeasured):
        return Check("replay", False, 0.0, limits.max_changed, f"the last requests could not be replayed: {replay.why}")
    share = replay.changed / replay.requests if replay.requests else 0.0
    unreadable = f", {replay.unreadable} more hold no text" if replay.unreadable else ""
    if replay.requests < LEAST_REPLAYED:
        detail = f"{replay.requests} requests could be replayed{unreadable}: below {LEAST_REPLAYED} they prove nothing"
        return Check("replay", True, share, limits.max_changed, detail)
    detail = (
        f"{replay.changed} of the last {replay.requests} requests change their answer ({share:.1%}, "
        f"at most {limits.max_changed:.1%} may){unreadable}{_most_changed(replay.classes)}"
    )
    return Check("replay", share <= limits.max_changed, share, limits.max_changed, detail)


def _most_changed(classes: tuple[ClassChange, ...]) -> str:
    ranked = sorted((one for one in classes if one.changed), key=lambda one: (-one.changed, one.label))
    named = [f"{one.label} {one.changed} of {one.requests}, mostly to {one.towards}" for one in ranked[:_CLASSES_NAMED]]
    return f": {'; '.join(named)}" if named else ""
