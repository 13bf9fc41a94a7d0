"""Labels as a file that training reads again."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import msgspec

from headrace.files.output import OutputError
from headrace.model import store
from headrace.model.places import Location
from headrace.training.labels_there import There

SUFFIXES = (".jsonl", ".csv")


def check_suffix(file: str) -> None:
    """Raise OutputError for a ``file`` with another suffix than SUFFIXES."""
    if not file.lower().endswith(SUFFIXES):
        raise OutputError(f"{file}: labels are written as {' or '.join(SUFFIXES)}.")


def write_labels(where: Location, labels: Sequence[There]) -> None:
    """Write ``labels`` with id, text and label, for the owner's eyes alone; a part of a file is never left.

    Raises StoreError when the file can't be written.
    """
    out = io.StringIO(newline="")
    if where.below[-1].lower().endswith(".csv"):
        rows = csv.writer(out, lineterminator="\n")
        rows.writerow(("id", "text", "label"))
        rows.writerows((one.id, one.text, one.label) for one in labels)
    else:
        for one in labels:
            row = {"id": one.id, "text": one.text, "label": one.label}
            out.write(f"{msgspec.json.encode(row).decode()}\n")
    store.write(where, out.getvalue().encode(), "export", private=True)
