from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from headrace_load.cli import TABLE
from headrace_load.contender import Program, WorkerProgram
from headrace_load.report.drawing import _COLOURS
from headrace_load.workload import spec

PAGE = (Path(__file__).parents[3] / "docs" / "load.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("|")]
TABLES = {
    "arrivals": get_args(spec.Arrivals),
    "texts": get_args(spec.Texts),
    "lengths": get_args(spec.Lengths),
    "keys": get_args(spec.Keys),
}


def row_of(table: str, kind: str) -> str:
    """The row of a kind, in the section of its table or with the table's name in front."""
    section = PAGE.partition(f"### `[{table}]`")[2].partition("\n#")[0]
    beginnings = (f"| `{kind}` |", f"| `[{table}]` `{kind}` |")
    found = [line for line in section.splitlines() if line.startswith(beginnings)] or [
        line for line in ROWS if line.startswith(beginnings[1])
    ]
    assert len(found) == 1, f"{table} {kind} has {len(found)} rows in docs/load.md"
    return found[0]


@pytest.mark.parametrize(("table", "kind"), [(table, kind) for table, kinds in TABLES.items() for kind in kinds])
def test_the_page_has_every_kind_with_its_settings_and_defaults(table, kind):
    row = row_of(table, kind.__struct_config__.tag)
    for field in msgspec.structs.fields(kind):
        assert f"`{field.name}`" in row
        if field.default is not msgspec.NODEFAULT:
            shown = re.search(rf"`{field.name}` \(`?([^)`]+)`?\)", row)
            assert shown, f"the default of {field.name} is missing"
            assert shown[1] == (f"{field.default:g}" if isinstance(field.default, float) else str(field.default))


def test_the_page_has_every_setting_of_a_workload_with_its_default():
    for field in msgspec.structs.fields(spec.Workload):
        if field.name in TABLES or field.name in {"deadlines", "bad"}:
            continue
        default = f"{field.default:g}" if isinstance(field.default, float) else str(field.default)
        assert any(row.replace("`", "").startswith(f"| {field.name} | {default} |") for row in ROWS), field.name


@pytest.mark.parametrize(("name", "struct"), [("deadlines", spec.Deadlines), ("bad", spec.Bad)])
def test_the_page_has_deadlines_and_rubbish(name, struct):
    row = next(line for line in ROWS if line.startswith(f"| `[{name}]` |"))
    assert all(f"`{field.name}`" in row for field in msgspec.structs.fields(struct))


def test_the_page_has_every_kind_of_rubbish():
    row = next(line for line in ROWS if line.startswith("| `[bad]` |"))
    assert all(f"`{kind}`" in row for kind in get_args(spec.Badness))


def test_the_page_has_every_setting_of_a_contender_and_every_command():
    section = PAGE.partition("## A contender")[2].partition("\n## ")[0]
    for struct in (WorkerProgram, Program):
        assert all(field.name in section for field in msgspec.structs.fields(struct))
    for command in TABLE:
        assert any(row.startswith(f"| `{command}") for row in ROWS), command


def test_the_page_names_the_stages_in_their_order():
    section = PAGE.partition("**Stages**")[2].partition("\n**")[0]
    rows = [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("|")]
    assert rows[2:] == list(_COLOURS)
