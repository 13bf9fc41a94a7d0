"""Labels as a file that training reads again."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from headrace.core.errors import UserError
from headrace.training.labels_there import There

SUFFIXES = (".jsonl", ".csv")


class ExportError(UserError):
    """A file that labels can't be written to."""

    exit_code = 2


def check_place(file: Path, *, force: bool) -> None:
    """Raise ExportError where ``file`` has another suffix than SUFFIXES, is there and not to be overwritten, or lies in
    no folder that is there.
    """
    if file.suffix.lower() not in SUFFIXES:
        raise ExportError(f"{file}: labels are written as {' or '.join(SUFFIXES)}.")
    if not file.parent.is_dir():
        raise ExportError(f"{file}: there is no folder {file.parent}.")
    if file.exists() and not (force and file.is_file()):
        raise ExportError(
            f"{file} is there already; --force overwrites it." if file.is_file() else f"{file} is no file."
        )


def write_labels(file: Path, labels: Sequence[There]) -> None:
    """Write ``labels`` with id, text and label, for the owner's eyes alone; a part of a file is never left.

    Raises ExportError when the file can't be written.
    """
    partial = file.with_name(f"{file.name}.partial")
    try:
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(descriptor, "w", encoding="utf-8", newline="") as out:  # noqa: PTH123 - opened above, for one user
                if file.suffix.lower() == ".csv":
                    rows = csv.writer(out, lineterminator="\n")
                    rows.writerow(("id", "text", "label"))
                    rows.writerows((one.id, one.text, one.label) for one in labels)
                else:
                    for one in labels:
                        row = {"id": one.id, "text": one.text, "label": one.label}
                        out.write(f"{msgspec.json.encode(row).decode()}\n")
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise ExportError(f"{file} can't be written: {error.strerror}.") from error
