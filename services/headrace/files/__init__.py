"""Rows of all kinds of files that hold texts, read as a stream; see :mod:`headrace.files.table`."""

from __future__ import annotations

from headrace.core.errors import UserError


class DatasetError(UserError):
    """Rows that can't be read or trained on; the message names the file, the line and what was expected."""


class InputError(DatasetError):
    """The file is missing or can't be opened: the command probably named the wrong file."""

    exit_code = 2
