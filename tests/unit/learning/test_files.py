import gzip
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from headrace.files import DatasetError
from headrace.learning.data.files import Rows, read_ids, read_rows

EXPECTED = Rows(('one, "two"', "drei\nvier", "五六"), ("a", "b", "3"))


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_json_lines_are_read_with_numbers_as_labels_and_blank_lines_skipped(tmp_path):
    lines = '{"text": "one, \\"two\\"", "label": "a", "more": [1]}\n\n{"label": "b", "text": "drei\\nvier"}\n'
    path = written(tmp_path, "rows.jsonl", lines + '{"text": "五六", "label": 3}')

    assert read_rows(path) == EXPECTED


def test_csv_is_read_with_quotes_newlines_and_a_byte_order_mark(tmp_path):
    path = written(tmp_path, "rows.CSV", '\ufefflabel,text\na,"one, ""two"""\nb,"drei\nvier"\n3,五六\n')

    assert read_rows(path) == EXPECTED


def test_parquet_is_read_by_column_names(tmp_path):
    table = pa.table({"body": list(EXPECTED.texts), "id": [1, 2, 3], "class": list(EXPECTED.labels)})
    parquet.write_table(table, tmp_path / "rows.parquet")

    assert read_rows(tmp_path / "rows.parquet", text_column="body", label_column="class") == EXPECTED


def test_booleans_blanks_and_decomposed_names_are_the_same_labels_by_every_way_in(tmp_path):
    lines = '{"text": "a", "label": true}\n{"text": "b", "label": false}\n{"text": "c", "label": "re\u0301el "}\n'
    as_json = written(tmp_path, "rows.jsonl", lines)
    as_csv = written(tmp_path, "rows.csv", "text,label\na,True\nb,FALSE\nc,\u00a0r\u00e9el\n")
    table = pa.table({"text": ["a", "b"], "label": [True, False]})
    parquet.write_table(table, tmp_path / "rows.parquet")

    assert read_rows(as_json).labels == read_rows(as_csv).labels == ("true", "false", "r\u00e9el")
    assert read_rows(tmp_path / "rows.parquet").labels == ("true", "false")


def test_what_spreadsheets_and_archives_make_of_a_file_is_read_and_told(tmp_path):
    told = []
    tab = written(tmp_path, "rows.txt", "text\tlabel\ncafé\ta\n".encode("utf-16"))
    packed = written(tmp_path, "rows.json.gz", gzip.compress(b'[{"text": "caf\\u00e9", "label": "a"}]'))

    assert read_rows(tab, tell=told.append) == read_rows(packed, tell=told.append) == Rows(("café",), ("a",))
    assert told == [f"{tab}: delimiter tab, encoding UTF-16-LE"]


def test_ids_are_taken_as_they_stand(tmp_path):
    path = written(tmp_path, "rows.csv", "text,id\na,True\nb, x \n")

    assert read_ids(path, id_column="id") == ("True", " x ")


def test_a_null_is_left_to_cleaning(tmp_path):
    path = written(tmp_path, "rows.jsonl", '{"text": null, "label": "a"}\n{"text": "x", "label": null}\n')

    assert read_rows(path) == Rows(("", "x"), ("a", ""))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.txt", "x", "must have one column 'text', its columns are 'x'"),
        ("rows.jsonl", '{"text": "x", "label": "a"}\n{"text": ', "line 2: is not a JSON object"),
        ("rows.jsonl", '{"text": "x", "label": "a"}\n["x"]\n', "line 2: is not a JSON object"),
        ("rows.jsonl", '{"text": "x", "class": "a"}\n', "line 1: has no 'label', only 'text', 'class'"),
        ("rows.jsonl", '{"text": 7, "label": "a"}\n', "line 1, 'text': must be a string, not int"),
        (
            "rows.jsonl",
            '{"text": "x", "label": 1.5}\n',
            "line 1, 'label': must be a string or a whole number, not float",
        ),
        ("rows.jsonl", b'{"text": "\x81", "label": "a"}\n', "line 1: is neither UTF-8 nor Windows-1252"),
        ("rows.csv", "text,class\nx,a\n", "must have one column 'label', its columns are 'text', 'class'"),
        ("rows.csv", "", "is empty; its first line has to name the columns"),
        ("rows.csv", "text,label,text\nx,a,y\n", "must have one column 'text'"),
        ("rows.csv", 'text,label\n"a\nb",x\nc,d,e\n', "line 4: has 3 fields where the first line names 2"),
        ("rows.csv", 'text,label\n"x"y,a\n', "line 2: here begins a row that is not valid CSV"),
        ("rows.csv", b"text,label\n\x81,a\n", "line 2: is neither UTF-8 nor Windows-1252"),
        ("rows.parquet", "text", "is not a Parquet file"),
    ],
)
def test_a_broken_file_is_refused_with_its_name_and_place(tmp_path, name, content, message):
    path = written(tmp_path, name, content)

    with pytest.raises(DatasetError, match=message) as refusal:
        read_rows(path)
    assert str(path) in str(refusal.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"gone\.csv: can't be read: No such file"):
        read_rows(tmp_path / "gone.csv")


def test_a_parquet_file_without_the_column_is_refused(tmp_path):
    parquet.write_table(pa.table({"text": ["x"]}), tmp_path / "rows.parquet")

    with pytest.raises(DatasetError, match="must have one column 'label'"):
        read_rows(tmp_path / "rows.parquet")
