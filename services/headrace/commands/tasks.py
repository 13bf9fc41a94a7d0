"""Texts that a person is asked to label, as a table, as lines for a program, or for an annotation tool."""

from __future__ import annotations

import enum
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from headrace.commands.common import say
from headrace.core.errors import UserError
from headrace.core.text import quantity
from headrace.files.annotations import AnyTask, argilla_records, label_studio_tasks
from headrace.files.spreadsheet import csv_writer

if TYPE_CHECKING:
    from headrace.model.places import Location

T = TypeVar("T", bound=AnyTask)


class TaskFormat(enum.StrEnum):
    """As what the texts are written."""

    TABLE = "table"
    CSV = "csv"
    JSONL = "jsonl"
    LABEL_STUDIO = "label-studio"
    ARGILLA = "argilla"


_SUFFIXES = {".csv": TaskFormat.CSV, ".jsonl": TaskFormat.JSONL}


def format_of(out: str | None, form: TaskFormat | None) -> TaskFormat:
    """The format that was asked for, or that the name of the file ``out`` says. Raises UserError."""
    if out is None:
        return form or (TaskFormat.TABLE if sys.stdout.isatty() else TaskFormat.JSONL)
    if form is TaskFormat.TABLE:
        raise UserError("--format table is for the screen; a file is csv, jsonl, label-studio or argilla.")
    found = form or _SUFFIXES.get(Path(out).suffix.lower())
    if found is None:
        raise UserError(f"{out}: its name says no format; name it .csv or .jsonl, or give --format.")
    return found


def give_out(
    tasks: Sequence[T], form: TaskFormat, out: str | None, where: Location | None, show: Callable[[Sequence[T]], None]
) -> None:
    """Write the tasks, of which there is one at least, to the file ``out``, which is at ``where``; without one ``show``
    them, or print them for a program.
    """
    if where is not None:
        from headrace.model import store

        store.write(where, written(tasks, form).encode("utf-8", "replace"), "export", private=True)
        say(f"wrote {quantity(len(tasks), 'text')} to {out}")
    elif form is TaskFormat.TABLE:
        show(tasks)
    else:
        sys.stdout.write(written(tasks, form))


def written(tasks: Sequence[AnyTask], form: TaskFormat) -> str:
    """The tasks as the text of a file of that format."""
    match form:
        case TaskFormat.LABEL_STUDIO:
            return msgspec.json.format(msgspec.json.encode(label_studio_tasks(tasks)), indent=1).decode() + "\n"
        case TaskFormat.ARGILLA:
            return msgspec.json.format(msgspec.json.encode(argilla_records(tasks)), indent=1).decode() + "\n"
        case TaskFormat.CSV:
            out = io.StringIO(newline="")
            write = csv_writer(out, list(tasks[0].row()))
            for task in tasks:
                write(task.row().values())
            return out.getvalue()
        case _:
            return "".join(f"{msgspec.json.encode(task.row()).decode()}\n" for task in tasks)
