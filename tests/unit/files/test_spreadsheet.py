"""CSV that we write is safe to open as a spreadsheet, and reading it gives what was written."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.files.spreadsheet import ESCAPED, csv_writer
from headrace.files.table import read_file

COLUMNS = ("id", "text", "label")
HOSTILE = ("=cmd|' /C calc'!A0", "+1", "-ism", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1", "'=1", "''-", "'", "a=b")
# NUL is in no CSV, and a lone surrogate in no UTF-8.
CELLS = st.one_of(
    st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12),
    st.sampled_from(HOSTILE),
    st.text("=+-@\t\r\n'\",;| a\uff1d", max_size=6),
)
TABLES = st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=6)


def written(rows) -> str:
    out = io.StringIO(newline="")
    write = csv_writer(out, COLUMNS)
    for row in rows:
        write(row)
    return out.getvalue()


def read(folder: Path, content: str) -> list[tuple[object, ...]]:
    file = folder / "rows.csv"
    file.write_bytes(content.encode())
    return [tuple(row.values[name] for name in COLUMNS) for row in read_file(file, COLUMNS)]


@given(rows=TABLES)
def test_what_is_read_is_what_was_written_whatever_it_holds(tmp_path_factory, rows) -> None:
    assert read(tmp_path_factory.mktemp("csv"), written(rows)) == rows


@given(rows=TABLES)
def test_no_cell_begins_as_a_formula_does(rows) -> None:
    for cells in csv.reader(io.StringIO(written(rows), newline="")):
        assert not [cell for cell in cells if cell.startswith(tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"))]


def test_a_row_names_the_columns_that_have_an_apostrophe_and_numbers_have_none() -> None:
    lines = written([("=1", "plain", "-x"), ("a", "b", "c"), (-1, None, 0.5)]).splitlines()
    assert lines == ["id,text,label,escaped", "'=1,plain,'-x,id|label", "a,b,c,", "-1,,0.5,"]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("id,text,label\n1,'=x,a\n", "'=x"),
        ("id,text,label,escaped\n1,'=x,a,\n", "'=x"),
        ("id,text,label,escaped\n1,'=x,a,yes\n", "'=x"),
        ("id,text,label,escaped\n1,'tis,a,text\n", "'tis"),
        ("id,text,label,escaped\n1,=x,a,text\n", "=x"),
        ("id,text,label,escaped,escaped\n1,'=x,a,text,text\n", "'=x"),
        ("id,text,label,escaped\n1,'=x,a,id|text\n", "=x"),
    ],
)
def test_only_what_the_row_names_and_has_an_apostrophe_loses_it(tmp_path: Path, content: str, text: str) -> None:
    assert read(tmp_path, content) == [("1", text, "a")]


def test_a_column_of_somebodys_own_with_that_name_is_read_as_any(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("text,escaped\nhello,from prison\n")
    (row,) = read_file(tmp_path / "own.csv", ("text", ESCAPED))
    assert row.values == {"text": "hello", ESCAPED: "from prison"}


def test_nul_becomes_a_blank_because_no_csv_can_hold_it(tmp_path: Path) -> None:
    assert read(tmp_path, written([("a\0b", "\0=1", "")])) == [("a b", " =1", "")]
