"""Checks whether an output file can be written, before the work for it begins."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from headrace.core.errors import UserError

# The suffix of a file's name while it is written.
_LONGEST_ENDING = ".0123456789ab.partial"


class OutputError(UserError):
    """The file can't be written, or exists and must not be overwritten."""

    exit_code = 2


def check_output(file: Path, *, force: bool = False) -> None:
    """Raise OutputError if ``file`` can't be written, or exists and ``force`` is not given.

    Missing folders are no fault, because the writer makes them. The check leaves nothing behind.
    """
    try:
        mode = file.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        mode = None
    except (OSError, ValueError) as error:
        raise _refused(file, error) from None
    if mode is not None and stat.S_ISDIR(mode):
        raise OutputError(f"{file} is a folder: name a file in it.")
    if mode is not None and not stat.S_ISREG(mode):
        raise OutputError(f"{file} is a device or a pipe: name a file.")
    if mode is not None and not force:
        raise OutputError(f"{file} is there already: --force overwrites it.")
    check_output_folder(file.parent)
    try:
        os.stat(f"{file}{_LONGEST_ENDING}")  # noqa: PTH116 - of a name that is too long, Path.exists says nothing
    except FileNotFoundError:
        pass
    except OSError as error:
        raise _refused(file, error) from None


def check_output_folder(folder: Path) -> None:
    """Raise OutputError if no file can be written in ``folder``, or the missing folder can't be made."""
    try:
        there = folder.absolute()
    except FileNotFoundError:
        raise OutputError(f"{folder} can't be written: the folder that this runs in was removed.") from None
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        raise OutputError(f"{there} is no folder, so nothing can be written below it.")
    try:
        # For root, and on some file systems, a folder's mode does not tell, so it is tried.
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise _refused(there, error) from None


def _refused(path: Path, error: OSError | ValueError) -> OutputError:
    why = getattr(error, "strerror", None) or error
    return OutputError(f"{path} can't be written: {why}. Name a place that this user can write.")
