"""Checks of the gate on what the rows tell of the candidate alone. What can't be told fails."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from headrace_schemas.records import Check

if TYPE_CHECKING:
    from headrace.core.gate import Evidence, Limits

MOST_BY_CHANCE: Final = 0.025
"""How often answers that ignore the text may do as well: half of what a 95 % interval leaves out."""
_NAMED = 10


def told(check: Check) -> Check:
    """A check of what is no number tells nothing, and could not be written as JSON."""
    if math.isfinite(check.value) and math.isfinite(check.limit):
        return check
    detail = f"can't tell: {check.value} was measured, which is no number to judge by; {check.detail}"
    return Check(check.name, False, 0.0, check.limit if math.isfinite(check.limit) else 0.0, detail)


def chance(evidence: Evidence, limits: Limits) -> Check:
    """Answers that ignore the text, whether one class for all or drawn at random, reach a macro-F1 of 1 / classes in
    the long run, and on few rows more than that now and then.
    """
    limit = min(1 / max(evidence.classes, 1) + limits.above_chance / 100, 1.0)
    if not evidence.rows or evidence.macro_f1 is None:
        return Check("chance", False, 0.0, limit, f"can't tell: there are no {evidence.judged_on} to judge it by")
    chosen = "" if evidence.keyed else "; trainer.split_key is not set, so who writes labels can choose these rows"
    low, high = evidence.interval
    detail = (
        f"macro-F1 is {evidence.macro_f1:.4f} on {evidence.rows} {evidence.judged_on} (95 % interval {low:.4f} to "
        f"{high:.4f}); {limit:.4f} is {limits.above_chance:g} points above what can be had without reading the "
        f"text{chosen}"
    )
    if (why := _untold(evidence, limits)) is not None:
        return Check("chance", False, evidence.macro_f1, limit, f"can't tell: {why}; {more_rows(evidence)}; {detail}")
    return Check("chance", evidence.macro_f1 >= limit, evidence.macro_f1, limit, detail)


def _untold(evidence: Evidence, limits: Limits) -> str | None:
    """Why the rows don't tell the candidate from one that ignores the text, None where they do."""
    on = f"{evidence.rows} {evidence.judged_on}"
    if evidence.rows < limits.least_rows:
        return f"{on}, and gate.least_rows is {limits.least_rows}"
    if evidence.classes < 2:
        return f"{on}, all of one class, so who always answers it is right"
    if evidence.by_chance is None:
        return f"{on}, and nobody measured how well answers that ignore the text do on them"
    if not evidence.by_chance <= MOST_BY_CHANCE:
        return (
            f"{on}, and answers that ignore the text do as well on {evidence.by_chance:.1%} of such, at most "
            f"{MOST_BY_CHANCE:.1%} may be"
        )
    return None


def more_rows(evidence: Evidence) -> str:
    """What to do about too few rows."""
    if evidence.sources:
        return "label more texts (about a tenth of them test), or look at it and promote it by hand"
    return f"add {evidence.judged_on}, or look at it and promote it by hand"


def untested(evidence: Evidence, limits: Limits) -> Check:
    """What the rows say of the classes among them they don't say of the others."""
    count, limit = len(evidence.untested), limits.untested_classes
    share = count / evidence.learnt if evidence.learnt else 1.0
    if not count and evidence.learnt:
        detail = f"each of the {evidence.learnt} classes that it learnt has {evidence.judged_on}"
        return Check("untested-classes", True, share, limit, detail)
    more = f" and {count - _NAMED} more" if count > _NAMED else ""
    detail = (
        f"{count} of the {evidence.learnt} classes that it learnt ({share:.1%}, at most {limit:.1%} may) have no "
        f"{evidence.judged_on}: {', '.join(evidence.untested[:_NAMED])}{more}"
    )
    if share <= limit:
        return Check("untested-classes", True, share, limit, detail)
    what = "label more texts of them, erase those that are a mistake, or raise gate.untested_classes"
    return Check("untested-classes", False, share, limit, f"can't tell: {detail}; {what}")


def agreement(evidence: Evidence, limits: Limits) -> Check:
    """Of the test rows also where others decide: the fp32 original answers no others."""
    limit = limits.agreement
    if evidence.agreement is None:
        detail = "can't tell: there are no test rows that the fp32 original answered too"
        return Check("agreement", False, 0.0, limit, detail)
    detail = (
        f"{evidence.agreement:.2%} of the test rows are answered as by the fp32 original, at least {limit:.2%} must be"
    )
    return Check("agreement", evidence.agreement >= limit, evidence.agreement, limit, detail)


def sources(evidence: Evidence, limits: Limits) -> Check:
    """Rows of one topic alone are what its writers make of them."""
    source, rows = max(evidence.sources.items(), key=lambda one: (one[1], one[0]))
    share = rows / sum(evidence.sources.values())
    detail = (
        f"{rows} of the test rows ({share:.1%}) come from the topic {source}, at most {limits.source_share:.1%} may"
    )
    if len(evidence.sources) == 1:
        detail += "; there is no other topic of labels, so below 100% only rows of gate.holdout can decide"
    return Check("source-share", share <= limits.source_share, share, limits.source_share, detail)
