"""Numbers, names and verdicts as text, for tables, pictures and the page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from headrace_load.contender import Contender
from headrace_load.result import Comparison, Result
from headrace_load.workload.spec import Backlog

NONE = "–"
LONGEST_NAME = 32
AMONG_OTHERS = "workers that run already"


def milliseconds(value: float | None) -> str:
    """Milliseconds with three figures or so; seconds from ten on."""
    if value is None:
        return NONE
    if abs(value) >= 10_000:
        return f"{value / 1000:,.1f} s"
    return f"{value:.2f} ms" if abs(value) < 10 else f"{value:.1f} ms" if abs(value) < 100 else f"{value:,.0f} ms"


def number(value: float | None) -> str:
    """A rate or an amount: whole from a hundred on, else with the decimals that three figures need."""
    if value is None:
        return NONE
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 or value == int(value) else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def percent(share: float) -> str:
    """A share as a percentage; one that is not nothing never reads as 0 %."""
    return "< 0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"


def short(name: str) -> str:
    """``name`` in one printable line that fits beside a bar."""
    line = " ".join("".join(c if c.isprintable() else " " for c in name).split()) or "no name"
    return line if len(line) <= LONGEST_NAME else line[: LONGEST_NAME - 1] + "…"


def described(contender: Contender | None) -> str:
    """What answered, in a line."""
    if contender is None:
        return AMONG_OTHERS
    if (worker := contender.worker) is not None:
        processes = "one process" if worker.processes == 1 else f"{worker.processes} processes"
        settings = "".join(f", {name}={value}" for name, value in sorted(worker.settings.items()))
        return f"headrace worker, {processes}, backend {worker.backend}, model {worker.model}{settings}"
    return f"program {' '.join(contender.program.command) if contender.program else ''}"


def flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """A struct's settings by dotted names, None and empty ones left out."""
    plain = msgspec.to_builtins(value)
    if isinstance(plain, dict):
        for key, part in plain.items():
            yield from flat(part, f"{name}.{key}" if name else str(key))
    elif isinstance(plain, list):
        if plain:
            yield name, ", ".join(str(part) for part in plain)
    elif plain is not None:
        yield name, str(plain)


def verdict(result: Result) -> tuple[bool, str]:
    """Whether the run's figures stand, and in a sentence or two why."""
    if result.refused is not None:
        return False, f"There is no verdict: {result.refused}"
    if not result.audit.kept:
        return False, f"The audit failed: {result.audit.line()}."
    audited = f"Every one of {result.audit.published:,} acknowledged requests has exactly one answer."
    if result.audit.answered < result.audit.published:  # rubbish, which only headrace has to answer
        rest = result.audit.published - result.audit.answered
        audited = f"Every request has exactly one answer but for {rest:,}, rubbish that this contender need not answer."
    if isinstance(result.workload.arrivals, Backlog) or result.lateness is None:
        return True, audited
    late = percent(result.lateness.late)
    return True, (
        f"{audited} The producers kept to their plan: {late} of the requests were sent more than "
        f"{number(result.workload.lateness_ms)} ms late, 99 in 100 at most {milliseconds(result.lateness.p99)}."
    )


def verdict_of_all(comparison: Comparison) -> tuple[bool, str]:
    """The same for a comparison: which contenders have runs without a verdict."""
    runs = {name: len(results) for name, results in comparison.results.items()}
    bad = {name: sum(not stands(result) for result in results) for name, results in comparison.results.items()}
    whole = f"{sum(runs.values())} runs of {len(runs)} contenders, in turn."
    if not any(bad.values()):
        return True, f"{whole} Every audit was kept, and the producers kept to their plan."
    named = "; ".join(f"{short(name)}: {count} of {runs[name]}" for name, count in bad.items() if count)
    return False, f"{whole} Some have no verdict or failed the audit, and are left out of the medians ({named})."


def headline(document: Result | Comparison) -> tuple[bool, str, str]:
    """Whether the figures stand, that in a few words, and why."""
    if isinstance(document, Result):
        stand, why = verdict(document)
        return stand, "The figures stand" if stand else "No figure stands", why
    stand, why = verdict_of_all(document)
    return stand, "The figures stand" if stand else "Not every figure stands", why


def stands(result: Result) -> bool:
    """Whether a run has a verdict and its audit was kept."""
    return result.refused is None and result.audit.kept
