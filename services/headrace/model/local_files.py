"""Files of this machine below a place, opened so that no symbolic link leads out of it.

The real path is looked up and has to be below the place's own. A real path has no link in it, so it is opened name by
name, and no name may be a link: the kernel refuses one that is put there in between.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace.model.errors import StoreError, StoreFault
from headrace.model.places import Location

# A folder on the way need not be readable, where the system knows the difference.
_PASS = os.O_DIRECTORY | os.O_NOFOLLOW | getattr(os, "O_PATH", os.O_RDONLY)
_TRIES = 10


def read(where: Location, limit: int) -> bytes:
    """The first ``limit`` bytes of a file. Raises OSError, and StoreError for a link that leads out."""
    # Without O_NONBLOCK, opening a named pipe would wait for its writer.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    with _folder_of(where) as (folder, name), os.fdopen(os.open(name, flags, dir_fd=folder), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise IsADirectoryError(errno.EISDIR, "no file")
        return file.read(limit)


def write(where: Location, data: bytes, token: str, *, private: bool = False) -> None:
    """Write a file, for its owner alone where it is ``private``, under a temporary name and move it.

    Nothing is left behind when it fails. Raises as :func:`read`.
    """
    with _folder_of(where, make=True) as (folder, name):
        temporary = f"{name}.{token}.partial"
        try:
            with os.fdopen(_create(temporary, folder, 0o600 if private else 0o666), "wb") as file:
                file.write(data)
            _refuse_no_file(name, folder)
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)
            raise


def size_of(where: Location) -> int | None:
    """Bytes of the file, None when there is none. Raises as :func:`read`."""
    try:
        with _folder_of(where) as (folder, name):
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def remove(where: Location) -> bool:
    """Remove a file; whether there was one. Raises as :func:`read`."""
    try:
        with _folder_of(where) as (folder, name):
            os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return False
    return True


def folders(where: Location) -> list[str]:
    """The names of the folders in a folder, none when there is no such folder. Raises as :func:`read`."""
    try:
        with _folder_of(where) as (folder, name):
            found = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            try:
                with os.scandir(found) as entries:
                    return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
            finally:
                os.close(found)
    except FileNotFoundError:
        return []


def remove_folder(where: Location) -> None:
    """Remove a folder with all that is in it; links in it are removed and not followed. Raises as :func:`read`."""
    with _folder_of(where) as (folder, name):
        shutil.rmtree(name, dir_fd=folder)


@contextmanager
def _folder_of(where: Location, *, make: bool = False) -> Iterator[tuple[int, str]]:
    """The folder that holds the file, open, and the file's own name in it. ``make`` makes the folders on the way."""
    root, names = _real(where)
    if make:
        Path(root).mkdir(parents=True, exist_ok=True)
    folder = os.open(root, _PASS)
    try:
        for name in names[:-1]:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, dir_fd=folder)
            inner = os.open(name, _PASS, dir_fd=folder)
            os.close(folder)
            folder = inner
        yield folder, names[-1]
    finally:
        os.close(folder)


def _real(where: Location) -> tuple[str, list[str]]:
    """The place's real path, and the names that lead from it to what ``where`` really is."""
    root = os.path.realpath("/" + "/".join(where.place.folder))
    real = os.path.realpath("/" + "/".join(where.names))
    begin = root.rstrip("/") + "/"
    if not real.startswith(begin):
        raise StoreError(f"{where} is refused: a symbolic link leads out of {where.place.uri}", StoreFault.REFUSED)
    return root, real.removeprefix(begin).split("/")


def _refuse_no_file(name: str, folder: int) -> None:
    """Refuse a device or a pipe, which the file would replace under its users. A link may be replaced."""
    with contextlib.suppress(FileNotFoundError):
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
            raise FileExistsError(errno.EEXIST, "no file")


def _create(name: str, folder: int, mode: int) -> int:
    """Create a file anew. One that a killed writer left under that name is removed."""
    for _ in range(_TRIES):
        try:
            return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode, dir_fd=folder)
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
    raise FileExistsError(errno.EEXIST, "it comes back")
