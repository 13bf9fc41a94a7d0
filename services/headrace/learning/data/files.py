"""Labelled texts, and how they are read from a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from headrace.core.text import label_name
from headrace.files.table import Reading, read_file


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
    path: Path,
    *,
    text_column: str = "text",
    label_column: str = "label",
    reading: Reading = Reading(),  # noqa: B008 - frozen
    tell: Callable[[str], None] = lambda _: None,
) -> Rows:
    """Read ``path``, which may be any file that :func:`~headrace.files.table.read_file` reads.

    A label may be a number, which becomes its decimal string, or a boolean; its name is cleaned by
    :func:`~headrace.core.text.label_name`. A null text or label becomes an empty string, which
    cleaning counts and drops. ``tell`` is told of a delimiter or an encoding that is unusual. Raises DatasetError for
    a file that is missing, of another kind, without those columns, or broken at some line.
    """
    texts, labels = [], []
    for row in read_file(path, (text_column, label_column), reading=reading, tell=tell):
        texts.append(row.string(text_column))
        labels.append(label_name(row.string(label_column, numbers=True)))
    return Rows(tuple(texts), tuple(labels))


def read_ids(
    path: Path,
    *,
    id_column: str,
    reading: Reading = Reading(),  # noqa: B008 - frozen
) -> tuple[str, ...]:
    """The ids of :func:`read_rows`' rows, as they stand there; a number becomes its decimal string."""
    return tuple(row.string(id_column, numbers=True) for row in read_file(path, (id_column,), reading=reading))
