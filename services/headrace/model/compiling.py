"""The decorator of every kernel: compiled by numba without the GIL, kept on disk until a source changes.

numba's own cache looks at the file of the function alone. A kernel calls functions and reads constants of other files,
and they are compiled into it: after a change there the old code would go on answering. So the cache is a folder named
after all sources of this package. In it, kernels of other packages have a folder named after what they need of others.

What is kept is unpickled, so it is code: it lies beside the sources or where no other user can write. Where there is no
such place each process compiles anew, which takes some seconds.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core import config as numba_config

import headrace_schemas
from headrace.process.logs import event
from headrace.security.private_folder import kept_folder, why_unusable

_PACKAGE = Path(__file__).parent
_SERVICES, _WIRE = _PACKAGE.parent, Path(headrace_schemas.__file__).parent
ELSEWHERE = (
    _SERVICES / "kafka" / "packed_records.py",
    _SERVICES / "kafka" / "record_writing.py",
    _SERVICES / "worker" / "answer_records.py",
    _SERVICES / "worker" / "partitions" / "partition.py",
    _SERVICES / "worker" / "request_json.py",
    _SERVICES / "worker" / "request_msgpack.py",
    _SERVICES / "worker" / "request_paths.py",
    _SERVICES / "worker" / "request_values.py",
    _SERVICES / "worker" / "stages" / "infer.py",
    _WIRE / "codec.py",
    _WIRE / "headers.py",
)
"""The files outside of this package of which kernels in other files have constants or functions."""
# numba fills this module from its environment variables when it is imported, so its names have no types.
_config: Any = numba_config


@cache
def sources_digest() -> str:
    """The first 16 digits of the SHA-256 of this package's sources."""
    return _digest_of(sorted(_PACKAGE.rglob("*.py")))


@cache
def elsewhere_digest() -> str:
    """The first 16 digits of the SHA-256 of what kernels outside of this package need of others."""
    return _digest_of(ELSEWHERE)


def _digest_of(sources: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sources:
        digest.update(path.name.encode() + b"\n" + path.read_bytes())
    return digest.hexdigest()[:16]


def kernel(function: Callable[..., Any] | None = None, *, inline: bool = False) -> Any:
    """Compile ``function`` at its first call, or take it from the cache; ``inline`` puts it into its callers.

    What can't be kept, as on a full disk, is compiled again by the next process.
    """
    if function is None:
        return lambda later: kernel(later, inline=inline)
    chosen = _config.CACHE_DIR
    folder = _folder(chosen)
    if folder is not None and not function.__module__.startswith("headrace.model."):
        folder /= f"elsewhere-{elsewhere_digest()}"
    _config.CACHE_DIR = "" if folder is None else str(folder)
    try:
        dispatcher: Any = numba.njit(nogil=True, cache=folder is not None, inline="always" if inline else "never")(
            function
        )
    finally:
        _config.CACHE_DIR = chosen
    if folder is not None:
        cached = dispatcher._cache  # noqa: SLF001 - numba has no public way to go on without its cache
        cached.save_overload = _tolerant(cached.save_overload)
    return dispatcher


@cache
def _folder(chosen: str) -> Path | None:
    """Where kernels are kept: in ``chosen``, which is NUMBA_CACHE_DIR, beside the sources, or in a folder of this user.

    None where there is no such place, which is said.
    """
    name = f"kernels-{sources_digest()}"
    why = why_unusable(Path(chosen).absolute() / name) if chosen else None
    if chosen and why is None:
        return Path(chosen).absolute() / name
    if _is_as_safe_as_the_sources(beside := _PACKAGE / "__pycache__" / name):
        folder: Path | None = beside
    else:
        folder = kept_folder(name, os.environ)
    if chosen and folder is not None:
        event("kernels.elsewhere", level="warning", folder=str(folder), why=f"NUMBA_CACHE_DIR is {chosen}, but {why}")
    if folder is None:
        advice = "set NUMBA_CACHE_DIR to a folder that this user alone can write, and each start is some seconds faster"
        event("kernels.in_memory", why=f"{why or 'no folder is safe to keep them in'}: {advice}")
    return folder


def _is_as_safe_as_the_sources(folder: Path) -> bool:
    """Whether ``folder`` can be made and written here, and only by those who can write the sources too."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found, sources = folder.stat(), _PACKAGE.stat()
    except OSError:
        return False
    more = found.st_mode & ~sources.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return os.access(folder, os.W_OK) and not more and found.st_uid in (0, os.geteuid(), sources.st_uid)


def _tolerant(save: Callable[..., None]) -> Callable[..., None]:
    """``save`` that passes over a full disk: this process goes on, and the next one compiles again."""

    def saved(signature: object, data: object) -> None:
        try:
            save(signature, data)
        except OSError as error:
            event("kernels.not_kept", level="warning", error=str(error))

    return saved
