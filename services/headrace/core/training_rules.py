"""When a training begins: rules over a few facts, each of which can be read, tested and explained by itself.

A rule looks at the labels since the last snapshot, whether that training succeeded or not. Training again on the same
labels would give the same version, so without a change only an order begins a training.
"""

from __future__ import annotations

import math

import msgspec

from headrace.core.text import quantity

SETTLE_PATIENCE = 12
"""If labels keep coming, a training waits at most this many times as long as they should be quiet."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What each rule asks for; None puts a rule out of use. Times in seconds.

    ``least_rows``: labels that there must be at all. ``new_labels`` and ``growth``: that so many came, or this share of
    those before; either is enough. ``drift`` and ``drift_new_labels``: with a PSI of at least ``drift`` so many new
    labels are enough. ``erasures``: erased labels that are reason enough. ``age``: since the last snapshot.
    ``settle``: labels that come in a burst are let come. ``retry``: until a failed training is tried again.
    ``new_machine_labels``: so many new labels of teachers are enough.
    """

    least_rows: int
    new_labels: int | None
    growth: float | None
    drift: float | None
    drift_new_labels: int
    erasures: int | None
    age: float | None
    settle: float
    retry: float
    new_machine_labels: int | None = None


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules look at.

    ``rows``: texts with a label to learn. ``new`` and ``erased``: ids labelled (again) and erased since the last
    snapshot. ``trained``: whether there was one. ``age_s``: since then. ``quiet_s`` and ``waiting_s``: since the
    last and since the first of the changes. ``drift``: the champion's largest PSI, None while that is unknown.
    ``order``: why somebody asked for a training, None when nobody did. ``failed_s``: since the last training failed,
    None when it did not. ``machine`` and ``new_machine``: labels of teachers that a training would learn from, and
    those of them that no snapshot holds.
    """

    rows: int
    new: int
    erased: int
    trained: bool
    age_s: float
    quiet_s: float
    waiting_s: float
    drift: float | None
    order: str | None
    failed_s: float | None
    machine: int = 0
    new_machine: int = 0


class Awaited(msgspec.Struct, frozen=True):
    """What the next training waits for: ``rule`` says what in one word, ``why`` in words for people.

    ``missing``: how many labels it lacks, 0 when it waits for something else. ``stuck``: nothing was ever trained, and
    somebody has to do something.
    """

    rule: str
    why: str
    missing: int = 0
    stuck: bool = False


def reason_to_train(facts: Facts, limits: Limits) -> str | None:
    """Why a training should begin now, in words for people; None when it should not."""
    if facts.order is not None:
        return f"ordered: {facts.order}"
    if (reason := _new_machine_labels(facts, limits)) is not None:
        return reason
    if facts.rows < limits.least_rows or not _settled(facts, limits):
        return None
    if (reason := _new_labels(facts, limits)) is not None:
        return reason
    if facts.failed_s is not None:
        # What failed before fails again, so nothing but new labels or time is a reason to try.
        return f"again, {facts.failed_s:.0f} s after a failure" if facts.failed_s >= limits.retry else None
    return _drift(facts, limits) or _erasures(facts, limits) or _age(facts, limits)


def awaited(facts: Facts, limits: Limits) -> Awaited:
    """What keeps the next training waiting, where there is no :func:`reason_to_train`."""
    wanted = _wanted(facts, limits)
    if facts.rows < limits.least_rows:
        missing = max(limits.least_rows - facts.rows, 0 if wanted is None else wanted - facts.new)
        order = "; `headrace models train --now` begins with those" if facts.rows else ""
        taught = f"; {facts.machine:,} labels of teachers begin none by themselves" if facts.machine else ""
        if facts.machine and not facts.rows:
            order = "; `headrace models train --now` makes a version of those alone, which only an operator promotes"
        why = (
            f"{facts.rows:,} of the {limits.least_rows:,} labels that a training begins at (trainer.least_rows): "
            f"`headrace labels publish FILE` brings the {missing:,} that are missing{taught}{order}"
        )
        return Awaited("rows", why, missing, stuck=not facts.trained)
    # Labels that a training has had are read again when a trainer begins; they are not new.
    if not _settled(facts, limits) and (facts.new or not facts.trained):
        return Awaited("settle", f"labels are coming; they have to be quiet for {limits.settle:g} s (trainer.settle)")
    if facts.failed_s is not None:
        left = max(0.0, limits.retry - facts.failed_s)
        why = f"the last training failed; it is tried again in {left:.0f} s (trainer.retry), or with new labels"
        return Awaited("retry", why)
    if wanted is None:
        why = "neither trainer.new_labels nor trainer.growth is set; `headrace models train --now` orders a training"
        return Awaited("order", why)
    why = (
        f"{facts.new:,} of the {wanted:,} new labels that begin the next training (trainer.new_labels, "
        "trainer.growth); `headrace models train --now` orders one"
    )
    return Awaited("new", why, max(0, wanted - facts.new))


def _wanted(facts: Facts, limits: Limits) -> int | None:
    """How many new labels begin a training after the first, as :func:`_new_labels` counts; None where none do."""
    if not facts.trained:
        return None
    counts = [] if limits.new_labels is None else [limits.new_labels]
    if limits.growth is not None:
        counts.append(max(1, math.ceil(limits.growth * max(1, facts.rows - facts.new))))
    return min(counts, default=None)


def _settled(facts: Facts, limits: Limits) -> bool:
    return facts.quiet_s >= limits.settle or facts.waiting_s >= SETTLE_PATIENCE * limits.settle


def _new_labels(facts: Facts, limits: Limits) -> str | None:
    if not facts.trained:
        return f"the first {quantity(facts.rows, 'label')}"
    if limits.new_labels is not None and facts.new >= limits.new_labels:
        return f"{facts.new} new labels"
    before = max(1, facts.rows - facts.new)
    if limits.growth is not None and facts.new >= limits.growth * before and facts.new > 0:
        return f"{facts.new} new labels, {100 * facts.new / before:.0f} % of those before"
    return None


def _new_machine_labels(facts: Facts, limits: Limits) -> str | None:
    wanted = limits.new_machine_labels
    if wanted is None or facts.new_machine < wanted or facts.rows + facts.machine < limits.least_rows:
        return None
    return f"{facts.new_machine} new labels of teachers"


def _drift(facts: Facts, limits: Limits) -> str | None:
    if limits.drift is None or facts.drift is None or facts.drift < limits.drift:
        return None
    return f"drift: PSI {facts.drift:.2f}" if facts.new >= limits.drift_new_labels else None


def _erasures(facts: Facts, limits: Limits) -> str | None:
    if limits.erasures is None or facts.erased < limits.erasures:
        return None
    return f"{facts.erased} erased labels"


def _age(facts: Facts, limits: Limits) -> str | None:
    if limits.age is None or facts.age_s < limits.age or facts.new + facts.erased == 0:
        return None
    return f"{facts.age_s:.0f} s since the last snapshot, and {facts.new + facts.erased} changes"
