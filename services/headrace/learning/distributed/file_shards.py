"""A rank's share of labelled texts in files."""

from __future__ import annotations

from pathlib import Path

from headrace.learning.data.files import Rows, read_rows
from headrace.learning.data.split import OWN_TEST_FILE, Splitting, split
from headrace.learning.data.validation import clean
from headrace.learning.distributed.collectives import Exchange
from headrace.learning.distributed.job import FileSource
from headrace.learning.distributed.shards import Parts, share, whole


def read_files(source: FileSource, exchange: Exchange, splitting: Splitting) -> Parts:
    """Read, clean and split the files as a whole by ``splitting``, and keep every ``world``-th row of each part.

    Raises DatasetError for what can't be read, or leaves a part without rows.
    """
    data = _read(source, source.data)
    cleaned = clean(data)
    validating = _read(source, source.valid) if source.valid is not None else None
    valid = None if validating is None else clean(validating)
    test = _read(source, source.test) if source.test is not None else None
    parts = split(cleaned, valid=valid, test=test, splitting=splitting)
    dropped = {
        "empty": cleaned.empty,
        "duplicate": cleaned.duplicate,
        "conflicting": cleaned.conflicting,
        "held out": parts.held_out,
    }
    identity = splitting.id if test is None else OWN_TEST_FILE
    named = {label for rows in (data, validating, test) if rows is not None for label in rows.labels if label}
    return share(whole(parts, dropped, identity, named), exchange.rank, exchange.world)


def _read(source: FileSource, path: str) -> Rows:
    return read_rows(
        Path(path), text_column=source.text_column, label_column=source.label_column, reading=source.reading
    )
