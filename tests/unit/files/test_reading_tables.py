import bz2
import csv
import gzip
import io
import json
import lzma
import os
import sys
import zipfile
import zlib
from pathlib import Path

import pyarrow as pa
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from headrace.files import DatasetError, decoding
from headrace.files.table import Kind, Reading, read_file, read_stream

ROWS = [{"text": 'one, "two"; drei\nvier', "label": "a"}, {"text": "五六 é", "label": "b|c"}]
COLUMNS = ("text", "label")

TEXTS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0\r"), max_size=30)
TABLES = st.lists(st.fixed_dictionaries({"text": TEXTS, "label": TEXTS}), min_size=1, max_size=6)
PACKERS = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


def delimited(rows, delimiter):
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, COLUMNS, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


WAYS = {
    "rows.csv": lambda rows: delimited(rows, ","),
    "semi.csv": lambda rows: delimited(rows, ";"),
    "bar.csv": lambda rows: delimited(rows, "|"),
    "rows.tsv": lambda rows: delimited(rows, "\t"),
    "rows.jsonl": lambda rows: "\n".join(json.dumps(row, ensure_ascii=False) for row in rows),
    "rows.json": json.dumps,
    "pretty.json": lambda rows: json.dumps(rows, indent=2, ensure_ascii=False),
}


def values(path, **options):
    return [row.values for row in read_file(path, COLUMNS, **options)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("packed", PACKERS)
@settings(max_examples=25)  # for each of the 105 ways to write
@given(rows=TABLES)
def test_a_table_reads_back_equal_whatever_it_is_written_as(tmp_path_factory, way, encoding, packed, rows):
    path = tmp_path_factory.mktemp("rows") / (way + packed)
    path.write_bytes(PACKERS[packed](WAYS[way](rows).encode(encoding)))

    assert values(path) == rows


def test_parquet_and_a_zip_archive_of_one_file_are_read(tmp_path):
    table = pa.table({"label": ["a", "b|c"], "text": [row["text"] for row in ROWS]})
    parquet.write_table(table, tmp_path / "r.parquet")
    with zipfile.ZipFile(tmp_path / "r.csv.zip", "w") as archive:
        archive.writestr("r.csv", delimited(ROWS, ";"))

    assert values(tmp_path / "r.parquet") == values(tmp_path / "r.csv.zip") == ROWS


def test_an_array_on_one_line_may_be_longer_than_any_row(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "MOST_CHARACTERS", 1 << 20)
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"text": "x\\" * 5_000, "label": "a"}] * 200))
    assert path.stat().st_size > 1 << 20

    assert len(values(path)) == 200


def test_a_field_may_be_longer_than_the_csv_modules_own_limit(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text(f"text,label\n{'x' * 500_000},a\n")

    assert len(values(path)[0]["text"]) == 500_000


def test_what_is_unusual_is_said(tmp_path):
    path, said = tmp_path / "rows.csv", []
    path.write_bytes("text;label\ncafé;a\n".encode("cp1252"))

    assert values(path, tell=said.append) == [{"text": "café", "label": "a"}]
    assert "delimiter semicolon" in said[0]
    assert "WARNING: line 2 is not UTF-8" in said[0]


def zipped(name, content):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), content)
    return made.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"text,class\nx,a\n", "must have one column 'label'"),
        ("a.csv", b"text,label,text\nx,a,y\n", "must have one column 'text'"),
        ("a.csv", b'text,label\n"a\nb",x\nc,d,e\n', "line 4: has 3 fields"),
        ("a.csv", b'text,label\nx,a\n"y,b\nz,c\n', "line 3: here begins a row that is not valid CSV"),
        ("a.csv", b"text,label\nx\0,a\n", "line 2: holds NUL"),
        ("a.csv", b"text,label\n\x81,a\n", "line 2: is neither UTF-8 nor Windows-1252"),
        ("a.jsonl", b'{"text": "x", "label": "a"}\n{"text": ', "line 2: is not a JSON object"),
        ("a.jsonl", b'{"a":' * 100_000, "line 1: is not a JSON object"),
        ("a.json", b'[{"text": "x", "label": "a"},\n', "the array has no end"),
        ("a.json", b'[{"text": "x", "label": "a"}]\nx', "line 2: something stands behind"),
        ("a.json", b"[1]", "line 1: here an array of objects"),
        ("a.parquet", b"text", "is not a Parquet file"),
        ("a.csv.gz", gzip.compress(b"text,label\n" + b"x,a\n" * 999, mtime=0)[:-9], "damaged or was cut"),
        ("a.csv.zst", zstandard.compress(b"text,label\n" + os.urandom(999).hex().encode())[:-9], "damaged or was cut"),
        ("a.xlsx", b"PK\x03\x04", "Excel workbook"),
        ("a.csv.gz", gzip.compress(gzip.compress(b"text,label\nx,a\n", mtime=0), mtime=0), "is packed itself"),
        ("a.csv.gz", gzip.compress(zipped("a.csv", b"text,label\nx,a\n"), mtime=0), "is packed itself"),
        ("a.zip", zipped("a.csv.gz", gzip.compress(b"text,label\nx,a\n", mtime=0)), "is packed itself"),
        ("a.parquet.gz", gzip.compress(b"PAR1", mtime=0), "is packed itself"),
        ("a.zip", b"PK\x05\x06" + bytes(18), "a zip archive with no file in it"),
        ("a.tar.gz", gzip.compress(bytes(257) + b"ustar", mtime=0), "is a tar archive"),
        ("a.tar", b"a.csv".ljust(257, b"\0") + b"ustar", "is a tar archive"),
        ("a.csv", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of Git LFS"),
        ("a.db", b"SQLite format 3\0", "an SQLite database"),
        ("a.jsonl", b'{"text": "x", "label": "a", "score": NaN}', "NaN is no JSON"),
        ("a.jsonl", b'{"text": "x \\ud83d", "label": "a"}', "half of a character"),
    ],
)
def test_a_broken_file_ends_in_one_error_that_names_it(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)

    with pytest.raises(DatasetError, match=message) as refusal:
        values(path)
    assert str(path) in str(refusal.value)


def test_parquet_is_read_whatever_its_name_says(tmp_path):
    parquet.write_table(pa.table({"text": ["x"], "label": ["a"]}), tmp_path / "rows.csv")

    assert values(tmp_path / "rows.csv") == [{"text": "x", "label": "a"}]


def test_a_string_of_parquet_that_is_not_utf_8_ends_in_one_error(tmp_path):
    texts = pa.array([b"\xff"]).view(pa.string())
    parquet.write_table(pa.table({"text": texts, "label": ["a"]}), tmp_path / "rows.parquet")

    with pytest.raises(DatasetError, match="is damaged behind row 0"):
        values(tmp_path / "rows.parquet")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_found_in_han_too_which_has_few_zeros(tmp_path, encoding):
    path, said = tmp_path / "rows.csv", []
    path.write_bytes(("text,label\n" + "这个产品很好用我非常喜欢,好\n" * 50).encode(encoding))

    assert values(path, tell=said.append)[0] == {"text": "这个产品很好用我非常喜欢", "label": "好"}
    assert encoding.upper() in said[0]


def test_an_address_is_told_from_a_missing_file(tmp_path):
    for address in ("https://example.org/rows.csv", "s3://bucket/rows.csv"):
        with pytest.raises(DatasetError, match="addresses are not read here"):
            values(Path(address))


def test_a_zip_archive_of_macos_holds_one_file(tmp_path):
    with zipfile.ZipFile(tmp_path / "r.zip", "w") as archive:
        for name in ("folder/r.csv", "folder/.DS_Store", "__MACOSX/folder/._r.csv"):
            archive.writestr(name, "text,label\nx,a\n")

    assert values(tmp_path / "r.zip") == [{"text": "x", "label": "a"}]


def test_folders_pipes_and_missing_files_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    for name, message in ((".", "is a folder"), ("pipe.csv", "is a pipe"), ("gone.csv", "No such file")):
        with pytest.raises(DatasetError, match=message):
            values(tmp_path / name)


@pytest.mark.parametrize("packed", [".gz", ".zst", ".bz2", ".xz"])
def test_a_bomb_is_refused(tmp_path, monkeypatch, packed):
    monkeypatch.setattr(decoding, "FREE_BYTES", 1 << 20)
    path = tmp_path / f"bomb.csv{packed}"
    path.write_bytes(PACKERS[packed](b"text,label\n" + b"\n" * (16 << 20)))

    with pytest.raises(DatasetError, match="grows to more than 250 times"):
        values(path)


def test_a_line_of_a_stream_is_read_before_the_next_one_is_written():
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream, os.fdopen(writing, "wb", buffering=0) as pipe:
        pipe.write(b"first\n")
        rows = read_stream(stream, "standard input", None, kind=Kind.TEXT)
        assert next(rows).values == {"text": "first"}
        pipe.write(b"second\n")
        assert next(rows).values == {"text": "second"}


def test_a_named_delimiter_and_encoding_are_taken(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes("text~label\nпривет~a\n".encode("koi8-r"))

    assert values(path, reading=Reading("~", "koi8-r")) == [{"text": "привет", "label": "a"}]
    with pytest.raises(DatasetError, match="there is no such encoding"):
        values(path, reading=Reading(None, "klingon"))


def stream(content):
    return read_stream(io.BufferedReader(io.BytesIO(content)), "standard input", ("text",), kind=Kind.CSV)


@pytest.mark.parametrize("packed", [".gz", ".zst", ".bz2", ".xz"])
def test_a_bomb_in_a_stream_is_refused_too(monkeypatch, packed):
    monkeypatch.setattr(decoding, "FREE_BYTES", 1 << 20)

    with pytest.raises(DatasetError, match="standard input: grows to more than 250 times"):
        list(stream(PACKERS[packed](b"text,label\n" + (b"x" * 1000 + b",y\n") * (1 << 16))))


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (Kind.TEXT, b"x" * (1 << 25)),
        (Kind.JSON, b'{"text": "' + b"x" * (1 << 25)),
        (Kind.JSON, b'[{"text": "' + b"x" * (1 << 25)),
        (Kind.JSON, b" " * (1 << 25)),
        (Kind.CSV, b'text\n"' + (b"x" * 1000 + b"\n") * 40_000),
    ],
)
def test_one_row_of_a_packed_stream_is_as_long_as_a_row_may_be(kind, content):
    packed = io.BufferedReader(io.BytesIO(gzip.compress(content, 1)))

    with pytest.raises(DatasetError, match=r"standard input.*(than 16,777,216|field limit \(16777216\))"):
        list(read_stream(packed, "standard input", ("text",), kind=kind))


@pytest.mark.parametrize("pack", [gzip, bz2, lzma, zstandard], ids=["gz", "bz2", "xz", "zst"])
def test_a_packed_stream_may_come_byte_by_byte(pack):
    class Trickle(io.RawIOBase):
        def __init__(self, content):
            self.content = io.BytesIO(content)

        def readable(self):
            return True

        def readinto(self, buffer):
            piece = self.content.read(1)
            buffer[: len(piece)] = piece
            return len(piece)

    rows = read_stream(io.BufferedReader(Trickle(pack.compress(b"one\ntwo\n"))), "it", None, kind=Kind.TEXT)

    assert [row.values["text"] for row in rows] == ["one", "two"]


def test_a_line_of_a_packed_stream_is_read_when_it_was_flushed():
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream, os.fdopen(writing, "wb", buffering=0) as pipe:
        packed = gzip.GzipFile(fileobj=pipe, mode="wb", mtime=0)
        packed.write(b"first\n")
        packed.flush()
        rows = read_stream(stream, "standard input", None, kind=Kind.TEXT)
        assert next(rows).values == {"text": "first"}
        packed.write(b"second\n")
        packed.flush()
        assert next(rows).values == {"text": "second"}
        packed.close()


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"PK\x03\x04", "is a zip archive or a workbook"), (b"PAR1", "is Parquet"), (b"%PDF-1.7", "is a PDF file")],
)
def test_what_no_stream_can_hold_is_refused_in_words(content, message):
    with pytest.raises(DatasetError, match=f"standard input: {message}"):
        list(stream(content))


@pytest.mark.parametrize("encoding", ["hex", "base64", "rot13", "undefined", "nosuch"])
def test_an_encoding_that_texts_cannot_come_in_is_refused(tmp_path, encoding):
    path = tmp_path / "rows.csv"
    path.write_text("text,label\nx,a\n")

    with pytest.raises(DatasetError, match=f"{encoding}"):
        values(path, reading=Reading(encoding=encoding))


def test_parquet_without_its_library_is_one_line_that_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "r.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "headrace.files.formats", raising=False)

    with pytest.raises(DatasetError, match=r"needs pyarrow .* pip install 'headrace\[train\]'"):
        values(tmp_path / "r.parquet")


def test_an_xz_file_whose_header_asks_for_gigabytes_is_refused(tmp_path):
    packed = bytearray(lzma.compress(b"text,label\na,b\n"))
    header = packed[12 : 12 + 4 * (packed[12] + 1)]
    dictionary = header.index(bytes((0x21, 1))) + 2
    header[dictionary] = 40  # 4 GiB - 1
    header[-4:] = zlib.crc32(header[:-4]).to_bytes(4, "little")
    packed[12 : 12 + len(header)] = header
    path = tmp_path / "bomb.csv.xz"
    path.write_bytes(packed)
    with pytest.raises(DatasetError, match=r"can't be unpacked.*Memory usage limit"):
        list(read_file(path, ("text", "label")))


def test_xz_streams_one_behind_the_other_with_padding_between_them_are_one_file(tmp_path):
    path = tmp_path / "two.csv.xz"
    path.write_bytes(lzma.compress(b"text,label\na,b\n") + bytes(8) + lzma.compress(b"c,d\n"))
    assert [row.values["text"] for row in read_file(path, ("text", "label"))] == ["a", "c"]
