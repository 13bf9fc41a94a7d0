"""Read labelled texts from a file: JSON lines, CSV or Parquet."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import msgspec

from headrace.core.errors import UserError
from headrace.core.label_names import label_name


class DatasetError(UserError):
    """Rows that can't be read or trained on; the message names the file, the line and what was expected."""


class Rows(msgspec.Struct, frozen=True):
    """Labelled texts in file order: ``texts[i]`` has ``labels[i]``. Either may be empty strings until cleaned."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def __add__(self, other: Rows) -> Rows:
        return Rows(self.texts + other.texts, self.labels + other.labels)

    def take(self, places: list[int]) -> Rows:
        """The rows at ``places``, in that order."""
        return Rows(tuple(self.texts[i] for i in places), tuple(self.labels[i] for i in places))


def read_rows(path: Path, *, text_column: str = "text", label_column: str = "label") -> Rows:
    """Read ``path``: ``.jsonl``, ``.csv`` (its first line names the columns) or ``.parquet``.

    A label may be a number, which becomes its decimal string, or a boolean; its name is cleaned by
    :func:`~headrace.core.label_names.label_name`. A null text or label becomes an empty string, which
    cleaning counts and drops. Raises DatasetError for a file that is missing, of another kind, without those columns,
    not UTF-8, or broken at some line.
    """
    texts, labels = _columns(path, text_column, label_column)
    return Rows(texts, tuple(map(label_name, labels)))


def read_ids(path: Path, *, text_column: str = "text", id_column: str) -> tuple[str, ...]:
    """The ids of :func:`read_rows`' rows, as they stand there; a number becomes its decimal string."""
    return _columns(path, text_column, id_column)[1]


def _columns(path: Path, text_column: str, other_column: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    reader = {".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}.get(path.suffix.lower())
    if reader is None:
        raise DatasetError(f"{path}: its name must end in .jsonl, .csv or .parquet, which says how to read it")
    try:
        return _collect(reader(path, text_column, other_column))
    except OSError as error:
        raise DatasetError(f"{path}: can't be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: is not UTF-8 ({error.reason}). Save it as UTF-8") from error


def _collect(pairs: Iterator[tuple[str, str]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    texts, labels = [], []
    for text, label in pairs:
        texts.append(text)
        labels.append(label)
    return tuple(texts), tuple(labels)


def _read_jsonl(path: Path, text_column: str, label_column: str) -> Iterator[tuple[str, str]]:
    decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"{path} line {number}"
            try:
                row = decoder.decode(line)
            except msgspec.DecodeError as error:
                raise DatasetError(f"{where}: is not a JSON object ({error})") from error
            for column in (text_column, label_column):
                if column not in row:
                    raise DatasetError(f"{where}: has no {column!r}, only {', '.join(map(repr, row)) or 'nothing'}")
            yield (
                _string(msgspec.json.decode(row[text_column]), f"{where}, {text_column!r}", numbers=False),
                _string(msgspec.json.decode(row[label_column]), f"{where}, {label_column!r}", numbers=True),
            )


def _read_csv(path: Path, text_column: str, label_column: str) -> Iterator[tuple[str, str]]:
    # utf-8-sig: spreadsheets write a byte order mark, which would become part of the first column's name.
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.reader(lines, strict=True)
        try:
            header = next(reader, [])
            text_at, label_at = (_place(path, header, column) for column in (text_column, label_column))
            for fields in reader:
                if not fields:
                    continue
                if len(fields) != len(header):
                    raise DatasetError(
                        f"{path} line {reader.line_num}: has {len(fields)} fields where the first line names"
                        f" {len(header)}. Is a text with a comma in it not quoted?"
                    )
                yield fields[text_at], fields[label_at]
        except csv.Error as error:
            raise DatasetError(f"{path} line {reader.line_num}: is not valid CSV ({error})") from error


def _read_parquet(path: Path, text_column: str, label_column: str) -> Iterator[tuple[str, str]]:
    import pyarrow as pa  # noqa: PLC0415  only for those who bring Parquet
    from pyarrow import parquet  # noqa: PLC0415

    try:
        with parquet.ParquetFile(path) as file:
            header = file.schema_arrow.names
            for column in (text_column, label_column):
                _place(path, header, column)
            number = 0
            for batch in file.iter_batches(columns=[text_column, label_column]):
                columns = (batch.column(text_column).to_pylist(), batch.column(label_column).to_pylist())
                for text, label in zip(*columns, strict=True):
                    number += 1
                    yield (
                        _string(text, f"{path} row {number}, {text_column!r}", numbers=False),
                        _string(label, f"{path} row {number}, {label_column!r}", numbers=True),
                    )
    except pa.ArrowInvalid as error:
        raise DatasetError(f"{path}: is not a Parquet file ({error})") from error


def _place(path: Path, header: list[str], column: str) -> int:
    if header.count(column) != 1:
        raise DatasetError(
            f"{path}: must have one column {column!r}, its columns are {', '.join(map(repr, header)) or 'none'}."
            " Name yours with --text-column and --label-column"
        )
    return header.index(column)


def _string(value: object, where: str, *, numbers: bool) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if numbers and isinstance(value, int):
        return str(value)
    allowed = "a string or a whole number" if numbers else "a string"
    raise DatasetError(f"{where}: must be {allowed}, not {type(value).__name__}")
