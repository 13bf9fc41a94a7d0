"""Files of artifacts and trainings on any fsspec URI: written so that no reader sees a part, read whole, removed.

A file is written under a temporary name and then moved. An object store has no move, only a copy and a removal, and
needs none: an object is not there before all of it is. So there it is written in its place. A folder is made where
there is none; a bucket is not, because who pays for it and who may read it is for people to decide.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec

from headrace.model.artifact_format import MAX_FILE_BYTES, ArtifactError

OBJECT_STORES = frozenset({"s3", "s3a"})


class StoreError(ArtifactError):
    """The store can't be reached, refuses, or has not what was asked for."""


def write(uri: str, data: bytes, token: str) -> None:
    """Write ``data`` at ``uri`` for readers to see all of it or nothing. ``token`` makes the temporary name unique.

    Raises StoreError when it can't be written; nothing is left behind then.
    """
    with _naming(uri, "written"):
        files, path = _open(uri)
        if _is_object_store(files):
            files.pipe_file(path, data)
            return
        files.makedirs(files._parent(path), exist_ok=True)  # noqa: SLF001 - fsspec has no public name for it
        temporary = f"{path}.{token}.partial"
        try:
            files.pipe_file(temporary, data)
            files.mv(temporary, path)
        except BaseException:
            if files.exists(temporary):
                files.rm_file(temporary)
            raise


def size_of(uri: str) -> int | None:
    """How many bytes are at ``uri``, None when there is nothing. Raises StoreError when the store can't say."""
    with _naming(uri, "looked at"):
        files, path = _open(uri)
        try:
            found = files.info(path)
        except FileNotFoundError:
            return None
        return int(found["size"]) if found["type"] == "file" else None


def read(uri: str, limit: int = MAX_FILE_BYTES) -> bytes:
    """All bytes at ``uri``. Raises StoreError when there are none, more than ``limit``, or they can't be read."""
    with _naming(uri, "read"):
        files, path = _open(uri)
        # One more than is allowed: a file that grows, or a store that lies about its size, is not read to its end.
        data: bytes = files.cat_file(path, end=limit + 1)
    if len(data) > limit:
        raise StoreError(f"{uri} could not be read: the store gives more than {limit} bytes")
    return data


def read_if_there(uri: str) -> bytes | None:
    """All bytes at ``uri``, None when there is nothing. Raises StoreError when the store can't say."""
    return None if size_of(uri) is None else read(uri)


def remove(uri: str) -> bool:
    """Remove what is at ``uri``; whether something was there. Raises StoreError when the store refuses."""
    with _naming(uri, "removed"):
        files, path = _open(uri)
        if not files.exists(path):
            return False
        files.rm_file(path)
        return True


def folders(uri: str) -> list[str]:
    """The names of the folders in the folder ``uri``, none when there is no such folder. Raises StoreError."""
    with _naming(uri, "listed"):
        files, path = _open(uri)
        try:
            found = files.ls(path, detail=True)
        except FileNotFoundError:
            return []
        return sorted(one["name"].rstrip("/").rpartition("/")[2] for one in found if one["type"] == "directory")


def remove_folder(uri: str) -> None:
    """Remove the folder ``uri`` and all that is in it. Raises StoreError when the store refuses."""
    with _naming(uri, "removed"):
        files, path = _open(uri)
        files.rm(path, recursive=True)


def _open(uri: str) -> tuple[Any, str]:
    files, path = fsspec.url_to_fs(uri)
    # A driver may remember a listing, and others write to the store as well.
    files.invalidate_cache()
    return files, path


def _is_object_store(files: Any) -> bool:
    names = (files.protocol,) if isinstance(files.protocol, str) else files.protocol
    return not OBJECT_STORES.isdisjoint(names)


@contextmanager
def _naming(uri: str, done: str) -> Iterator[None]:
    """Errors name the URI."""
    try:
        yield
    except ImportError as error:
        raise StoreError(f"{uri} could not be {done}: {error} (for S3: pip install 'headrace[s3]')") from error
    except Exception as error:
        # Whatever it is: a driver raises what its library raises, and fsspec has no base for that.
        raise StoreError(f"{uri} could not be {done}: {error or type(error).__name__}") from error
