"""The gate: whether a candidate takes the champion's place, from what was measured of both.

The candidate has seen newer labels, and has left out the texts that were erased. So it is promoted unless there is
something against it, and the burden of proof is shared between two limits on its macro-F1:

- what was seen: on the test rows it may be at most ``worse_by`` points below the champion;
- what can't be excluded: the lower end of the 95 % interval of that difference may be at most ``uncertain_by`` points
  below zero. That is a test of non-inferiority (D'Agostino, Massaro and Sullivan, Statistics in Medicine 22, 2003): a
  test split too small to tell is no reason to promote.

The difference is fair to both: only rows count that neither was trained on, those that the splits of both call test. A
class that the champion does not know counts as its mistake. Demanding a gain instead would keep a stale version
for as long as the labels only confirm it.

Two more comparisons are there because labels can be written by people who mean no good, and because points add up:

- on the rows that the champion's own snapshot held already, so that a flood of new rows can't hide what became of them;
- with the baseline, the best version so far or one that an operator chose. Without it each candidate might lose the
  allowed point against the last champion, which had lost one against the champion before.

What can't be told is never in a candidate's favour. A version without a champion, too, has to have shown on enough rows
that it reads the text: answers that ignore it must be as good by chance at most one time in forty (a permutation test,
which holds for any number of rows). And most of the classes that it learnt must have rows to decide by.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Final

import msgspec

from headrace.core.fields import LARGEST, Section
from headrace.core.text import quantity
from headrace_schemas.records import Check

MOST_BY_CHANCE: Final = 0.025
"""How often answers that ignore the text may do as well: half of what a 95 % interval leaves out."""
_NAMED = 10

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Points = Annotated[float, msgspec.Meta(ge=0)]
Positive = Annotated[float, msgspec.Meta(gt=0)]

LEAST_REPLAYED = 30
"""Requests below which a share of changed answers says nothing."""
LEAST_ACROSS_SPLITS = 30
"""Rows that two splits both have to call test before two versions are compared on them."""
HOLDOUT_TOPIC = "topic:"
"""What a topic's name has in front of it as gate.holdout."""
_CLASSES_NAMED = 3

_UNNOTICED_US = 10.0
"""By so much a text may take longer in any case: of texts of few words a busy machine says no more than that."""


class Limits(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a candidate has to keep to. Points are hundredths of macro-F1."""

    above_chance: Points = 5.0
    """Points of macro-F1 above what answers that ignore the text can reach."""
    least_rows: Annotated[int, msgspec.Meta(ge=1, le=LARGEST)] = 10
    """Rows to decide by below which nobody can tell: each of fewer is more than ten points of accuracy."""
    untested_classes: Share = 0.2
    """Largest share of the learnt classes that may have no row to decide by: of five classes one new or misspelt label
    blocks nothing, of two or three each is most of what has to be known. 1 turns the check off."""
    worse_by: Points = 1.0
    """Points that macro-F1 may be below the champion's on the test rows, unless the interval says it may be chance."""
    uncertain_by: Points = 5.0
    """Points below the champion's that the 95 % interval may reach; a small test split makes it wide."""
    baseline_worse_by: Points = 2.0
    """Points that macro-F1 may be below the baseline's, unless the interval says it may be chance."""
    source_share: Share = 1.0
    """Largest share of the test rows that may come from one topic; 1 allows a single topic."""
    agreement: Share = 0.9
    """Least share of the rows to decide by that the compressed version answers as its fp32 original does."""
    max_bytes: Annotated[int, msgspec.Meta(gt=0, le=2**63 - 1)] = 64 << 20
    """Largest artifact."""
    max_latency_us: Positive = 1000.0
    """Longest mean time a text on one thread, in microseconds."""
    slower_by: Annotated[float, msgspec.Meta(ge=1)] = 2.0
    """Most times the champion's time a text, measured beside it."""
    max_changed: Share = 0.25
    """Largest share of the replayed requests whose answer may change."""
    coverage: Share = 0.0
    """Least share of the replayed requests that get a label and not an abstention; 0 turns the check off."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Macro-F1 of both on ``rows`` rows, in [0, 1], and the 95 % interval of candidate less rival."""

    rows: int
    macro_f1: float
    rival_macro_f1: float
    low: float
    high: float

    @property
    def difference(self) -> float:
        """Candidate less rival."""
        return self.macro_f1 - self.rival_macro_f1

    @property
    def told(self) -> bool:
        """Whether all of it is numbers."""
        return all(map(math.isfinite, (self.difference, self.low, self.high)))


class ClassChange(msgspec.Struct, frozen=True):
    """Of ``requests`` that the champion answered ``label``, ``changed`` get another answer, mostly ``towards``."""

    label: str
    requests: int
    changed: int
    towards: str | None


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """The last real requests, answered by both. ``unreadable`` ones hold no text and were passed over.

    The candidate gives ``labelled`` of them a label, and abstains from the others.
    """

    requests: int
    changed: int
    unreadable: int
    classes: tuple[ClassChange, ...]
    labelled: int = 0


class Unmeasured(msgspec.Struct, frozen=True):
    """Something that should have been measured and could not be; why."""

    why: str


class Rival(msgspec.Struct, frozen=True, kw_only=True):
    """The champion or the baseline, ``version``, beside the candidate on the rows that neither was trained on.

    ``known`` is on those of them that the rival's own snapshot held, ``new`` on those that came since; None where there
    are none, and both None where nobody can tell.
    """

    version: str
    comparison: Comparison | Unmeasured
    known: Comparison | None = None
    new: Comparison | None = None
    spared: bool = True
    """Whether it is certain that it was trained on none of the rows."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of a candidate, on ``rows`` rows of ``classes`` classes and in use; None where nothing was.

    ``interval`` is the 95 % interval of ``macro_f1``; ``by_chance`` how often answers that ignore the text do as well.
    Of the ``learnt`` classes those that are ``untested`` have no row. ``decided_on`` says in words what these rows are.
    ``sources``: how many of them come from which topic; empty where an operator chose them. ``keyed``: whether who
    writes labels can't compute which rows are tested on. ``champion``, ``champion_latency_us`` and ``replay`` are None
    when there is no champion. ``agreement`` is the share of the rows that it answers as its fp32 original,
    ``latency_us`` microseconds a text, ``size`` bytes.
    """

    rows: int
    classes: int
    learnt: int
    untested: tuple[str, ...]
    macro_f1: float | None
    interval: tuple[float, float]
    by_chance: float | None
    agreement: float | None
    size: int
    latency_us: float
    decided_on: str = "test rows"
    sources: dict[str, int] = {}
    keyed: bool = True
    champion: Rival | None = None
    baseline: Rival | None = None
    champion_latency_us: float | None = None
    replay: Replayed | Unmeasured | None = None
    unproven: bool = False
    """Whether no person labelled any row that it was trained or tested on."""


class Decision(msgspec.Struct, frozen=True):
    """What the gate decides, with every check that it made and the reason in a sentence.

    ``raises_baseline``: whether later candidates are to be compared with this one instead of the baseline.
    """

    promoted: bool
    reason: str
    checks: tuple[Check, ...]
    raises_baseline: bool


def decide_by(evidence: Evidence, limits: Limits) -> Decision:
    """Make every check: a candidate that fails one is told about the others too. It is promoted when it fails none."""
    checks = tuple(map(_finite, _checks(evidence, limits)))
    failed = [check.detail for check in checks if not check.passed]
    if failed:
        return Decision(False, "; ".join(failed), checks, raises_baseline=False)
    said = [check.detail for check in checks if check.name in ("macro-f1", "replay")]
    reason = "; ".join(said) or f"the first version: {checks[0].detail}"
    return Decision(True, reason, checks, raises_baseline=_is_best(evidence))


def _is_best(evidence: Evidence) -> bool:
    """Whether it is the first version, or better than the baseline for certain, and not by new rows alone."""
    rival = evidence.baseline or evidence.champion
    if rival is None:
        return True
    better = isinstance(rival.comparison, Comparison) and rival.comparison.low > 0
    return better and (rival.known is None or rival.known.difference >= 0)


def _checks(evidence: Evidence, limits: Limits) -> Iterator[Check]:
    if evidence.unproven:
        detail = (
            "no person labelled any of its rows, so they say only how far it agrees with its teachers; an operator who "
            "has looked at it may promote it: `headrace models promote VERSION`"
        )
        yield Check("proven", False, 0.0, 1.0, detail)
    yield _chance_check(evidence, limits)
    if limits.untested_classes < 1:
        yield _untested_check(evidence, limits)
    if evidence.sources and limits.source_share < 1:
        yield _sources_check(evidence, limits)
    if evidence.champion is not None:
        yield from _against_champion(evidence.champion, evidence, limits)
    if evidence.baseline is not None:
        yield from _against_baseline(evidence.baseline, evidence, limits)
    yield _agreement_check(evidence, limits)
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
        if limits.coverage:
            yield _coverage(evidence.replay, limits)


def _against_champion(champion: Rival, evidence: Evidence, limits: Limits) -> Iterator[Check]:
    yield from _loss("macro-f1", champion, evidence, limits.worse_by)
    comparison = champion.comparison
    if isinstance(comparison, Unmeasured):
        return
    low = 100 * comparison.low
    passed = low >= -limits.uncertain_by
    # A loss that is none for certain: the rows are too few to exclude it.
    untold = "" if passed or comparison.high < 0 else f"can't tell whether it is worse, {_more_rows(evidence)}: "
    yield Check(
        "macro-f1-interval",
        passed,
        low,
        -limits.uncertain_by,
        f"{untold}the 95 % interval of macro-F1 against {champion.version} begins at {low:+.2f} points on "
        f"{comparison.rows} {evidence.decided_on}, and may begin at {-limits.uncertain_by:g}",
    )
    yield from _known_loss("macro-f1-known", champion, evidence, limits.worse_by)


def _against_baseline(baseline: Rival, evidence: Evidence, limits: Limits) -> Iterator[Check]:
    yield from _loss("macro-f1-baseline", baseline, evidence, limits.baseline_worse_by, "the baseline ")
    yield from _known_loss("macro-f1-baseline-known", baseline, evidence, limits.baseline_worse_by, "the baseline ")


def _loss(name: str, rival: Rival, evidence: Evidence, worse_by: float, named: str = "") -> Iterator[Check]:
    comparison = rival.comparison
    if isinstance(comparison, Comparison) and not comparison.told:
        comparison = Unmeasured("what was measured is no number")
    if isinstance(comparison, Unmeasured):
        detail = f"it could not be compared with {named}{rival.version} on the {evidence.decided_on}: {comparison.why}"
        yield Check(name, False, 0.0, -worse_by, detail)
        return
    apart = "" if rival.spared else f"; {rival.version} may have been trained on some of them"
    if rival.new is not None:
        others = "there are no others" if rival.known is None else f"{_points(rival.known)} on the others"
        apart += f"; {_points(rival.new)} on {rival.new.rows} that came since its snapshot, {others}"
    measured = f"(95 % interval {_interval(comparison)}, {comparison.rows} {evidence.decided_on}{apart})"
    yield Check(
        name,
        _allowed(comparison, worse_by),
        100 * comparison.difference,
        -worse_by,
        f"macro-F1 is {_points(comparison)} points from {named}{rival.version} {measured}, more than {worse_by:g} "
        "below are not allowed unless it may be chance",
    )


def _known_loss(name: str, rival: Rival, evidence: Evidence, worse_by: float, named: str = "") -> Iterator[Check]:
    """Where new rows came too: a loss on the others that these may hide."""
    if rival.known is None or rival.new is None:
        return
    yield Check(
        name,
        _allowed(rival.known, worse_by),
        100 * rival.known.difference,
        -worse_by,
        f"macro-F1 is {_points(rival.known)} points from {named}{rival.version} on the {rival.known.rows} "
        f"{evidence.decided_on} that its snapshot held already (95 % interval {_interval(rival.known)}), more than "
        f"{worse_by:g} below are not allowed unless it may be chance",
    )


def _allowed(comparison: Comparison, worse_by: float) -> bool:
    return 100 * comparison.difference >= -worse_by or comparison.high > 0


def _points(comparison: Comparison) -> str:
    return f"{100 * comparison.difference:+.2f}"


def _interval(comparison: Comparison) -> str:
    return f"{100 * comparison.low:+.2f} to {100 * comparison.high:+.2f}"


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


def _coverage(replay: Replayed | Unmeasured, limits: Limits) -> Check:
    if isinstance(replay, Unmeasured) or replay.requests < LEAST_REPLAYED:
        what = "the last requests could not be replayed" if isinstance(replay, Unmeasured) else "too few were replayed"
        return Check("coverage", False, 0.0, limits.coverage, f"can't tell which share gets a label: {what}")
    share = replay.labelled / replay.requests
    detail = (
        f"{replay.labelled} of the last {replay.requests} requests get a label ({share:.1%}), at least "
        f"{limits.coverage:.1%} have to"
    )
    return Check("coverage", share >= limits.coverage, share, limits.coverage, detail)


def _replay(replay: Replayed | Unmeasured, limits: Limits) -> Check:
    if isinstance(replay, Unmeasured):
        return Check("replay", False, 0.0, limits.max_changed, f"the last requests could not be replayed: {replay.why}")
    share = replay.changed / replay.requests if replay.requests else 0.0
    if replay.requests < LEAST_REPLAYED <= replay.requests + replay.unreadable:
        detail = (
            f"can't tell: {replay.unreadable} of the last {replay.requests + replay.unreadable} requests hold no text "
            "that can be read; set text_path and content type as the workers have them, or gate.replay = 0"
        )
        return Check("replay", False, share, limits.max_changed, detail)
    unreadable = f", {replay.unreadable} more hold no text" if replay.unreadable else ""
    if replay.requests < LEAST_REPLAYED:
        few = "too few were compared to tell" if replay.requests else "can't tell, nothing was compared"
        detail = (
            f"{few}: {quantity(replay.requests, 'request')} could be replayed{unreadable}, "
            f"below {LEAST_REPLAYED} they prove nothing"
        )
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


def _finite(check: Check) -> Check:
    """A check of what is no number tells nothing, and could not be written as JSON."""
    if math.isfinite(check.value) and math.isfinite(check.limit):
        return check
    detail = f"can't tell: {check.value} was measured, which is no number to decide by; {check.detail}"
    return Check(check.name, False, 0.0, check.limit if math.isfinite(check.limit) else 0.0, detail)


def _chance_check(evidence: Evidence, limits: Limits) -> Check:
    """Answers that ignore the text, whether one class for all or drawn at random, reach a macro-F1 of 1 / classes in
    the long run, and on few rows more than that now and then.
    """
    limit = min(1 / max(evidence.classes, 1) + limits.above_chance / 100, 1.0)
    if not evidence.rows or evidence.macro_f1 is None:
        return Check("chance", False, 0.0, limit, f"can't tell: there are no {evidence.decided_on} to decide by")
    chosen = "" if evidence.keyed else "; trainer.split_key is not set, so who writes labels can choose these rows"
    low, high = evidence.interval
    detail = (
        f"macro-F1 is {evidence.macro_f1:.4f} on {evidence.rows} {evidence.decided_on} (95 % interval {low:.4f} to "
        f"{high:.4f}); {limit:.4f} is {limits.above_chance:g} points above what can be had without reading the "
        f"text{chosen}"
    )
    if (why := _untold(evidence, limits)) is not None:
        return Check("chance", False, evidence.macro_f1, limit, f"can't tell: {why}; {_more_rows(evidence)}; {detail}")
    return Check("chance", evidence.macro_f1 >= limit, evidence.macro_f1, limit, detail)


def _untold(evidence: Evidence, limits: Limits) -> str | None:
    """Why the rows don't tell the candidate from one that ignores the text, None where they do."""
    on = f"{evidence.rows} {evidence.decided_on}"
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


def _more_rows(evidence: Evidence) -> str:
    """What to do about too few rows."""
    if evidence.sources:
        return "label more texts (about a tenth of them test), or look at it and promote it by hand"
    return f"add {evidence.decided_on}, or look at it and promote it by hand"


def _untested_check(evidence: Evidence, limits: Limits) -> Check:
    """What the rows say of the classes among them they don't say of the others."""
    count, limit = len(evidence.untested), limits.untested_classes
    share = count / evidence.learnt if evidence.learnt else 1.0
    if not count and evidence.learnt:
        detail = f"each of the {evidence.learnt} classes that it learnt has {evidence.decided_on}"
        return Check("untested-classes", True, share, limit, detail)
    more = f" and {count - _NAMED} more" if count > _NAMED else ""
    detail = (
        f"{count} of the {evidence.learnt} classes that it learnt ({share:.1%}, at most {limit:.1%} may) have no "
        f"{evidence.decided_on}: {', '.join(evidence.untested[:_NAMED])}{more}"
    )
    if share <= limit:
        return Check("untested-classes", True, share, limit, detail)
    what = "label more texts of them, erase those that are a mistake, or raise gate.untested_classes"
    return Check("untested-classes", False, share, limit, f"can't tell: {detail}; {what}")


def _agreement_check(evidence: Evidence, limits: Limits) -> Check:
    """On so few rows that one is more than all that may differ, one may: it tells nothing."""
    limit, share, rows = limits.agreement, evidence.agreement, evidence.rows
    if share is None:
        detail = f"can't tell: there are no {evidence.decided_on} that the fp32 original answered too"
        return Check("agreement", False, 0.0, limit, detail)
    detail = f"{share:.2%} of the {rows} {evidence.decided_on} are answered as by the fp32 original, at least "
    detail += f"{limit:.2%} must be"
    if share < limit < 1 and rows * (1 - share) < 1.5 and rows * (1 - limit) < 1:
        detail = f"too few to tell, one row differs: {detail} where there are {math.ceil(1 / (1 - limit))} and more"
        return Check("agreement", True, share, limit, detail)
    return Check("agreement", share >= limit, share, limit, detail)


def _sources_check(evidence: Evidence, limits: Limits) -> Check:
    """Rows of one topic alone are what its writers make of them."""
    source, rows = max(evidence.sources.items(), key=lambda one: (one[1], one[0]))
    share = rows / sum(evidence.sources.values())
    detail = (
        f"{rows} of the test rows ({share:.1%}) come from the topic {source}, at most {limits.source_share:.1%} may"
    )
    if len(evidence.sources) == 1:
        detail += "; there is no other topic of labels, so below 100% only rows of gate.holdout can decide"
    return Check("source-share", share <= limits.source_share, share, limits.source_share, detail)
