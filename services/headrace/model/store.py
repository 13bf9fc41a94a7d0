"""Files of artifacts and trainings below allowed places: written so that no reader sees a part, read whole, removed.

Only this module opens anything, and only a :class:`~headrace.model.places.Location`. Files of this machine are opened
by :mod:`headrace.model.local_files`, all else by fsspec's driver of its scheme, which is given a path and never a URI.

A file is written under a temporary name and then moved. An object store has no move, only a copy and a removal, and
needs none: an object is not there before all of it is. So there it is written in its place. A folder is made where
there is none; a bucket is not, because who pays for it and who may read it is for people to decide.

What a driver says goes to the log at the level ``debug`` and nowhere else: it may hold whatever the driver knows.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fsspec

from headrace.files.output import OutputError, check_output
from headrace.model import local_files
from headrace.model.errors import StoreError, StoreFault
from headrace.model.places import Location
from headrace.process.logs import event

__all__ = [
    "StoreError",
    "StoreFault",
    "check_place",
    "folders",
    "read",
    "read_if_there",
    "remove",
    "remove_folder",
    "size_of",
    "write",
]

MAX_FILE_BYTES = 2 * 2**30
"""The largest file that is read."""

_EXTRAS = {"s3": "pip install 'headrace[s3]'", "gs": "pip install gcsfs", "az": "pip install adlfs"}
_LONGEST_NAME = 60
# Endings of the names of errors in libraries of drivers.
_AWAY = ("ConnectionError", "TimeoutError")


def check_place(where: Location, *, force: bool = False) -> None:
    """Check that a file can be written, before the work for it begins. The check leaves nothing behind.

    Raises OutputError when the store can't be reached, its driver is not installed, the name is that of a folder, or a
    file is there already and ``force`` does not overwrite it.
    """
    try:
        if where.scheme == "file":
            check_output(Path("/", *where.names), force=force)
        elif _is_there(where) and not force:
            raise OutputError(f"{where} is there already: --force overwrites it.")
        elif where.scheme != "memory":
            _try_to_write(where)
    except StoreError as error:
        raise OutputError(str(error)) from error


def write(where: Location, data: bytes, token: str, *, private: bool = False) -> None:
    """Write ``data`` for readers to see all of it or nothing. ``token`` makes the temporary name unique.

    A file of this machine is for the owner's eyes alone where it is ``private``. Raises StoreError when it can't be
    written; nothing is left behind then.
    """
    with _in_our_words(where, "written"):
        if where.scheme == "file":
            local_files.write(where, data, token, private=private)
            return
        files, path = _open(where)
        if where.scheme != "memory":
            files.pipe_file(path, data)
            return
        files.makedirs(path.rpartition("/")[0], exist_ok=True)
        temporary = f"{path}.{token}.partial"
        try:
            files.pipe_file(temporary, data)
            files.mv(temporary, path)
        except BaseException:
            if files.exists(temporary):
                files.rm_file(temporary)
            raise


def size_of(where: Location) -> int | None:
    """How many bytes are there, None when there is no file. Raises StoreError when the store can't say."""
    with _in_our_words(where, "looked at"):
        if where.scheme == "file":
            return local_files.size_of(where)
        files, path = _open(where)
        try:
            found = files.info(path)
        except FileNotFoundError:
            return None
        return int(found["size"]) if found["type"] == "file" else None


def read(where: Location, limit: int = MAX_FILE_BYTES) -> bytes:
    """All bytes of a file. Raises StoreError when there are none, more than ``limit``, or they can't be read."""
    with _in_our_words(where, "read"):
        # One more than is allowed: a file that grows, or a store that lies about its size, is not read to its end.
        if where.scheme == "file":
            data = local_files.read(where, limit + 1)
        else:
            files, path = _open(where)
            data = files.cat_file(path, end=limit + 1)
    if len(data) > limit:
        raise StoreError(f"{where} could not be read: the store gives more than {limit} bytes", StoreFault.TOO_LARGE)
    return data


def read_if_there(where: Location) -> bytes | None:
    """All bytes of a file, None when there is none. Raises StoreError when the store can't say."""
    return None if size_of(where) is None else read(where)


def remove(where: Location) -> bool:
    """Remove a file; whether something was there. Raises StoreError when the store refuses."""
    with _in_our_words(where, "removed"):
        if where.scheme == "file":
            return local_files.remove(where)
        files, path = _open(where)
        if not files.exists(path):
            return False
        files.rm_file(path)
        return True


def folders(where: Location) -> list[str]:
    """The names of the folders in a folder, none when there is no such folder. Raises StoreError."""
    with _in_our_words(where, "listed"):
        if where.scheme == "file":
            return local_files.folders(where)
        files, path = _open(where)
        try:
            found = files.ls(path, detail=True)
        except FileNotFoundError:
            return []
        return sorted(one["name"].rstrip("/").rpartition("/")[2] for one in found if one["type"] == "directory")


def remove_folder(where: Location) -> None:
    """Remove a folder and all that is in it. Raises StoreError when the store refuses."""
    with _in_our_words(where, "removed"):
        if where.scheme == "file":
            local_files.remove_folder(where)
            return
        files, path = _open(where)
        files.rm(path, recursive=True)


def _is_there(where: Location) -> bool:
    try:
        return size_of(where) is not None
    except StoreError as error:
        # A user who may only write gets this also for a file that is not there.
        if error.fault is not StoreFault.DENIED:
            raise
        return False


def _try_to_write(where: Location) -> None:
    """Write an object: nothing else shows that the bucket is there and that it may be written to."""
    tried = where.beside(".partial")
    with _in_our_words(where, "written"):
        files, path = _open(tried)
        files.pipe_file(path, b"")
        with suppress(Exception):
            # A user who may write but not remove can still write.
            files.rm_file(path)


def _open(where: Location) -> tuple[Any, str]:
    """The driver of the scheme, and the path in its own spelling. There is no other way to a driver."""
    files = fsspec.filesystem(where.scheme)
    # A driver may remember a listing, and others write to the store as well.
    files.invalidate_cache()
    return files, ("/" if where.scheme == "memory" else "") + "/".join(where.names)


@contextmanager
def _in_our_words(where: Location, done: str) -> Iterator[None]:
    """Errors name the location, a code and what it means, and hold nothing that a driver said."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:  # noqa: BLE001 - a driver raises what its library raises; fsspec has no base for that
        event("store.driver", level="debug", uri=where.uri, error=repr(error))
        fault, words = _fault(where, error)
        # Without its cause: a traceback in a log would quote it.
        raise StoreError(f"{where} could not be {done}: {words}", fault) from None


def _fault(where: Location, error: Exception) -> tuple[StoreFault, str]:
    kind = type(error).__name__
    named = f" ({kind})" if kind.isidentifier() and len(kind) <= _LONGEST_NAME else ""
    fault, words = StoreFault.FAILED, f"its driver failed{named}; log.level = debug shows in what words"
    if isinstance(error, ImportError):
        fault, words = StoreFault.NO_DRIVER, f"its driver is not installed ({_EXTRAS.get(where.scheme, 'see fsspec')})"
    elif isinstance(error, FileNotFoundError):
        fault, words = StoreFault.ABSENT, "there is no such file, folder or bucket"
    elif isinstance(error, PermissionError):
        fault, words = StoreFault.DENIED, "access is denied"
    elif isinstance(error, TimeoutError | ConnectionError) or kind.endswith(_AWAY):
        fault, words = StoreFault.AWAY, f"the store can't be reached{named}"
    elif where.scheme == "file" and isinstance(error, OSError) and error.errno is not None:
        # The system's own words for a number.
        refused = error.errno in {errno.ELOOP, errno.ENOTDIR}
        fault, words = StoreFault.REFUSED if refused else StoreFault.FAILED, os.strerror(error.errno)
    return fault, words
