"""Folders for what is kept from one run to the next.

What is kept is believed when it is found again, such as compiled code and programs. So it lies only where no other
user can put, change or replace anything, from the folder itself up to the root. A user without a home, as services
have, keeps it beside what is temporary; who can write nowhere goes without.
"""

from __future__ import annotations

import os
import pwd
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from pathlib import Path

from headrace.logs import event
from headrace.security.private_folder import NoFolderError, private_folder

_SET_CACHE = "Set XDG_CACHE_HOME to a folder that this user alone can write"
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def kept_folders(name: str, environ: Mapping[str, str]) -> Iterator[Path]:
    """Where ``name`` may be kept, the best first: in the user's cache, else beside what is temporary. None is made."""
    cache = environ.get("XDG_CACHE_HOME", "")
    if not Path(cache).is_absolute():
        cache = str(home / ".cache") if (home := _home(environ)) is not None else ""
    if cache:
        yield Path(cache) / "headrace" / name
    try:
        yield private_folder(environ).path / name
    except NoFolderError:
        return  # of all temporary folders none can be written


def kept_folder(name: str, environ: Mapping[str, str]) -> Path | None:
    """The first of :func:`kept_folders` that is this user's own, made and writable; None where there is none."""
    return next((path for path in kept_folders(name, environ) if why_unusable(path) is None), None)


def needed_folder(name: str, environ: Mapping[str, str], filled: Callable[[Path], bool] = lambda _: False) -> Path:
    """As :func:`kept_folder`, for what nobody can go without; one that is ``filled`` need not be writable.

    Another than the user's cache is said. Raises NoFolderError, which says why each of them can't be used.
    """
    tried: list[str] = []
    for path in kept_folders(name, environ):
        why = _why_unsafe_or_absent(path) if filled(path) else why_unusable(path)
        if why is None:
            if tried:
                event("cache.elsewhere", level="warning", folder=str(path), why=tried[0])
            return path
        tried.append(why)
    raise NoFolderError(f"nowhere can {name} be kept: {', '.join(tried) or 'no home and no TMPDIR'}. {_SET_CACHE}")


def keep_what_matplotlib_caches(environ: MutableMapping[str, str]) -> None:
    """Before matplotlib is imported: where the user has no home, it looks through the fonts once, not each time, and
    warns of nothing.
    """
    home = _home(environ)
    if "MPLCONFIGDIR" in environ or (home is not None and os.access(home, os.W_OK)):
        return
    if (folder := kept_folder("matplotlib", environ)) is not None:
        environ["MPLCONFIGDIR"] = str(folder)


def why_unusable(path: Path) -> str | None:
    """Why nothing can be kept in the folder ``path``, in words; None when it can, and then the folder is there."""
    try:
        for level in reversed((path, *path.parents)):
            if not level.exists():
                level.mkdir(mode=0o700)
        tempfile.TemporaryFile(dir=path).close()
        return why_unsafe(path)
    except OSError as error:
        return f"{path} can't be written ({error.strerror or error})"


def why_unsafe(path: Path) -> str | None:
    """Why other users could put something into the folder ``path`` or in its place; None when they can't.

    Raises OSError when it can't be looked at.
    """
    folder = path.resolve(strict=True)
    for level in (folder, *folder.parents):
        found = level.stat()
        if found.st_uid not in (0, os.geteuid()):
            return f"{level} belongs to another user ({found.st_uid})"
        # In a sticky folder others can't move what isn't theirs.
        if found.st_mode & _OTHERS_WRITE and (level == folder or not found.st_mode & stat.S_ISVTX):
            return f"others can write {level} ({stat.filemode(found.st_mode)})"
    return None


def _why_unsafe_or_absent(path: Path) -> str | None:
    try:
        return why_unsafe(path)
    except OSError as error:
        return f"{path} can't be read ({error.strerror or error})"


def _home(environ: Mapping[str, str]) -> Path | None:
    """The user's home, which need not be there; None for a user of whom no home is known."""
    home = environ.get("HOME", "")
    if not home:
        try:
            home = pwd.getpwuid(os.geteuid()).pw_dir
        except KeyError:
            return None
    return Path(home) if Path(home).is_absolute() else None
