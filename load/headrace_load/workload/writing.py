"""A workload as a TOML file that `read_workload` reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from headrace_load.workload.spec import Workload


def write_workload(workload: Workload, path: Path, comment: str) -> None:
    """Write ``workload``, its paths as they are, under ``comment``, one line."""
    settings = {name: value for name, value in msgspec.to_builtins(workload).items() if value is not None}
    tables = {name: value for name, value in settings.items() if isinstance(value, dict)}
    lines = [f"# {comment}", *_pairs({name: value for name, value in settings.items() if name not in tables})]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *_pairs(table)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _pairs(table: dict[str, Any]) -> list[str]:
    # Strings, numbers and lists of them are written in TOML as they are in JSON.
    return [f"{name} = {msgspec.json.encode(value).decode()}" for name, value in table.items()]
