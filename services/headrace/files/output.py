"""Whether a file can be written, checked before the work whose result goes there begins."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from headrace.core.errors import UserError

# What writers put behind a file's name while they write it.
_LONGEST_ENDING = ".0123456789ab.partial"


class OutputError(UserError):
    """A place that no file can be written to, or where one is that was not to be overwritten."""

    exit_code = 2


def check_output(file: Path, *, force: bool = False) -> None:
    """Raise OutputError where ``file`` can't be written, or is there and not to be overwritten by ``force``.

    Folders that are missing on the way are no reason: who writes makes them. Nothing is left by looking.
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
    """Raise OutputError where no file can be written in ``folder``, nor the folder made where it is missing."""
    try:
        there = folder.absolute()
    except FileNotFoundError:
        raise OutputError(f"{folder} can't be written: the folder that this runs in was removed.") from None
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        raise OutputError(f"{there} is no folder, so nothing can be written below it.")
    try:
        # As root, and on some file systems, what a folder's mode says is not what happens: so it is tried.
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise _refused(there, error) from None


def _refused(path: Path, error: OSError | ValueError) -> OutputError:
    why = getattr(error, "strerror", None) or error
    return OutputError(f"{path} can't be written: {why}. Name a place that this user can write.")
