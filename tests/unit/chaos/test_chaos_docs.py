"""The page of faults tells of each one that exists, and its sentence is the sum of its rows."""

from __future__ import annotations

from pathlib import Path

from load.chaos.__main__ import SEQUENCES
from load.chaos.faults import ALL
from load.chaos.run import BEGIN, END, HEAD

PAGE = Path(__file__).parents[3] / "docs" / "chaos.md"
NAMES = [name.strip() for name in HEAD.splitlines()[0].strip("|").split("|")]


def between_the_marks() -> str:
    return PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]


def rows() -> list[dict[str, str]]:
    lines = between_the_marks().partition(HEAD)[2].split("\n")
    cells = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines if line]
    return [dict(zip(NAMES, found, strict=True)) for found in cells]


def total(column: str) -> int:
    return sum(int(row[column].replace(",", "")) for row in rows())


def test_every_fault_has_a_row_in_the_order_of_the_faults():
    assert [row["fault"] for row in rows()] == [fault.title for fault in (*ALL, *SEQUENCES)]


def test_the_sentence_above_the_table_is_the_sum_of_its_rows():
    said = " ".join(between_the_marks().partition(HEAD)[0].split())
    assert said.startswith(f"{len(rows())} faults, {total('runs')} runs of together ")
    kept = f"{total('requests'):,} requests, {total('lost')} lost, {total('seen repeats')} seen twice. All runs kept"
    assert kept in said
