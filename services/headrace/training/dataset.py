"""Labelled texts, and how they are read from a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from headrace.core.label_names import label_name
from headrace.files.errors import DatasetError
from headrace.files.table import read_file


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


def read_rows(
    path: Path, *, text_column: str = "text", label_column: str = "label", tell: Callable[[str], None] = lambda _: None
) -> Rows:
    """Read ``path``, which may be any file that :func:`~headrace.files.table.read_file` reads.

    A label may be a number, which becomes its decimal string, or a boolean; its name is cleaned by
    :func:`~headrace.core.label_names.label_name`. A null text or label becomes an empty string, which
    cleaning counts and drops. ``tell`` is told of a delimiter or an encoding that is unusual. Raises DatasetError for
    a file that is missing, of another kind, without those columns, or broken at some line.
    """
    texts, labels = _columns(path, text_column, label_column, tell)
    return Rows(texts, tuple(map(label_name, labels)))


def read_ids(path: Path, *, text_column: str = "text", id_column: str) -> tuple[str, ...]:
    """The ids of :func:`read_rows`' rows, as they stand there; a number becomes its decimal string."""
    return _columns(path, text_column, id_column, lambda _: None)[1]


def _columns(
    path: Path, text_column: str, other_column: str, tell: Callable[[str], None]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    texts, others = [], []
    for where, values in read_file(path, (text_column, other_column), tell=tell):
        texts.append(_string(values[text_column], f"{where}, {text_column!r}", numbers=False))
        others.append(_string(values[other_column], f"{where}, {other_column!r}", numbers=True))
    return tuple(texts), tuple(others)


def _string(value: object, where: str, *, numbers: bool) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if numbers and isinstance(value, int):
        return str(value)
    allowed = "a string or a whole number" if numbers else "a string"
    raise DatasetError(f"{where}: must be {allowed}, not {type(value).__name__}")
