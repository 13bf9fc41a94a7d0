"""What tables are made of, as data: the terminal and the page show the same."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from headrace_load.result import Result

_WORDS = {
    "cpu_s_per_100k": "CPU s a 100,000",
    "rss_mb_most": "memory, MB",
    "p50": "p50, ms",
    "p99": "p99, ms",
    "dropped": "raw repeats dropped",
    "wrong": "to other texts",
}
"""What fields of differences and audits are called, where it isn't their name."""


class Table(Struct, frozen=True, kw_only=True):
    """``rows`` of texts below ``columns``; the first column is of names, the others of figures."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def called(field: str) -> str:
    """What a report calls a field of an audit or a figure of a difference."""
    return _WORDS.get(field, field.replace("_", " "))


def counts_of(result: Result) -> tuple[dict[str, int], dict[str, int]]:
    """The audit's counts by field, and the answers by status."""
    plain = msgspec.structs.asdict(result.audit)
    counts = {name: value for name, value in plain.items() if isinstance(value, int)}
    return counts, {f"answered {status}": count for status, count in sorted(result.audit.by_status.items())}
