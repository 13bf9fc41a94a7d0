"""The decorator of every kernel: compiled by numba without the GIL, kept on disk until a source changes.

numba's own cache looks at the file of the function alone. A kernel calls functions of other files, and they are
compiled into it: after a change there the old code would go on answering. So the cache is a folder named after all
sources of this package.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core import config as numba_config

from headrace.logs import event

_PACKAGE = Path(__file__).parent
# numba fills this module from its environment variables when it is imported, so its names have no types.
_config: Any = numba_config


@cache
def sources_digest() -> str:
    """The first 16 digits of the SHA-256 of this package's sources."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(path.relative_to(_PACKAGE).as_posix().encode() + b"\n" + path.read_bytes())
    return digest.hexdigest()[:16]


def kernel(function: Callable[..., Any] | None = None, *, inline: bool = False) -> Any:
    """Compile ``function`` at its first call, or take it from the cache; ``inline`` puts it into its callers.

    The cache lies in ``__pycache__`` beside the sources, or in NUMBA_CACHE_DIR. Where neither can be written numba
    takes the user's cache, which is right as long as the sources can't be written either. What can't be kept, as on a
    full disk, is compiled again by the next process.
    """
    if function is None:
        return lambda later: kernel(later, inline=inline)
    chosen = _config.CACHE_DIR
    _config.CACHE_DIR = str(Path(chosen or _PACKAGE / "__pycache__") / f"kernels-{sources_digest()}")
    try:
        dispatcher: Any = numba.njit(nogil=True, cache=True, inline="always" if inline else "never")(function)
    finally:
        _config.CACHE_DIR = chosen
    cached = dispatcher._cache  # noqa: SLF001 - numba has no public way to go on without its cache
    cached.save_overload = _tolerant(cached.save_overload)
    return dispatcher


def _tolerant(save: Callable[..., None]) -> Callable[..., None]:
    """``save``, and a disk that is full costs the next start its compiling time, not this one its life."""

    def saved(signature: object, data: object) -> None:
        try:
            save(signature, data)
        except OSError as error:
            event("kernels.not_kept", level="warning", error=str(error))

    return saved
