"""Rows of any file that people keep texts in, read as a stream: see :mod:`headrace.files.table`."""

from __future__ import annotations

from headrace.core.errors import UserError


class DatasetError(UserError):
    """Rows that can't be read or trained on; the message names the file, the line and what was expected."""


class InputError(DatasetError):
    """A file that is missing, or none that can be opened: the command named another than it should."""

    exit_code = 2
