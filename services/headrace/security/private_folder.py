"""Folders that no other user of the machine can make, fill or redirect.

Some folders live as long as a process or a block of code: they hold lock files, logs and sockets. Anybody can guess
such a name. In a folder that everybody can write, another user could take the name first, with a folder of their own or
a link to somewhere else. So a folder is checked through the descriptor by which it was opened, links are not followed,
and files are opened relative to that descriptor.

Other folders are kept from run to run. Their content, such as compiled code and programs, is trusted when it is found
again. So they lie only where no other user can add, change or replace anything, from the folder up to the root. A user
without a home, such as a service's, keeps them beside temporary files; a user who can write nowhere has none.
"""

from __future__ import annotations

import errno
import os
import pwd
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import msgspec

from headrace.core.errors import UserError
from headrace.process.logs import event

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_SET_TMPDIR = "Set TMPDIR to a folder that this user can write"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class UnsafeFolderError(UserError):
    """Another user of the machine may have made this folder or file, or can change it."""


class NoFolderError(UserError):
    """The folder can't be made: the place is read-only, full, or another user's."""


class PrivateFolder(msgspec.Struct, frozen=True):
    """A folder that is made when it is first used, with mode 0700.

    ``outer`` is the folder that it is in, when that has to be private too; otherwise ``path.parent`` has to be there.
    Every use checks the owner again, and raises UnsafeFolderError for a folder that isn't this user's alone, or
    NoFolderError when it can't be made.
    """

    path: Path
    outer: PrivateFolder | None = None

    def folder(self, name: str) -> PrivateFolder:
        """The folder ``name`` in this one."""
        return PrivateFolder(self.path / _plain(name), self)

    @contextmanager
    def descriptor(self) -> Iterator[int]:
        """The folder's descriptor, checked, while the block runs."""
        with self._parent() as parent:
            try:
                os.mkdir(self.path.name, 0o700, dir_fd=parent)
            except FileExistsError:
                pass
            except OSError as error:
                raise _unusable(self.path, error) from error
            try:
                found = os.open(self.path.name, _FOLDER | os.O_NOFOLLOW, dir_fd=parent)
            except OSError as error:
                raise _unsafe(self.path, _why(error, self.path.name, parent)) from error
            try:
                _check_folder(self.path, found)
                yield found
            finally:
                os.close(found)

    def open(self, name: str, flags: int) -> int:
        """Open the file ``name`` by ``flags`` of os.open and return its descriptor; a new one gets the mode 0600.

        Opening never truncates. Raises UnsafeFolderError for a link, for anything but a regular file, and for a file
        that belongs to another user or has a second name.
        """
        if flags & os.O_TRUNC:
            raise ValueError("what a name leads to is not known before it is open, so nothing is truncated by opening")
        with self.descriptor() as folder:
            try:
                # Without O_NONBLOCK a planted FIFO would hold us up.
                kept = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
                file = os.open(_plain(name), flags | kept, 0o600, dir_fd=folder)
            except OSError as error:
                if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EACCES):
                    raise
                raise _unsafe(self.path / name, _why(error, name, folder)) from error
        try:
            _check_file(self.path / name, os.fstat(file))
        except UnsafeFolderError:
            os.close(file)
            raise
        os.set_blocking(file, True)
        return file

    @contextmanager
    def _parent(self) -> Iterator[int]:
        if self.outer is not None:
            with self.outer.descriptor() as outer:
                yield outer
            return
        try:
            parent = os.open(self.path.parent, _FOLDER)
        except OSError as error:
            raise _unusable(self.path, error) from error
        try:
            mode = os.fstat(parent).st_mode
            if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
                raise _unsafe(
                    self.path.parent, f"its mode is {stat.filemode(mode)}, so everybody can replace what is in it"
                )
            yield parent
        finally:
            os.close(parent)


def private_folder(environ: Mapping[str, str]) -> PrivateFolder:
    """The folder for files that live as long as processes: in XDG_RUNTIME_DIR, or else in the temporary folder.

    XDG_RUNTIME_DIR is used if it is this user's alone, as its definition demands; after `sudo` it is not. Raises
    NoFolderError when there is no temporary folder either.
    """
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if Path(runtime).is_absolute() and _is_ours(Path(runtime)):
        return PrivateFolder(Path(runtime) / "headrace")
    return PrivateFolder(_temporary(environ.get("TMPDIR", "")) / f"headrace-{os.geteuid()}")


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """A new folder of this user alone, which is removed after the block. Raises NoFolderError when none can be made."""
    where = _temporary(os.environ.get("TMPDIR", ""))
    try:
        made = tempfile.TemporaryDirectory(prefix=prefix, dir=where)
    except OSError as error:
        raise NoFolderError(f"nothing can be made in {where}: {error.strerror or error}. {_SET_TMPDIR}") from error
    with made as folder:
        yield Path(folder)


@cache
def _temporary(tmpdir: str) -> Path:
    """The folder for temporary files: ``tmpdir``, the value of TMPDIR, or else the first writable one of the system's,
    which is logged once. Raises NoFolderError when there is none.
    """
    if tmpdir and os.access(f"{tmpdir}/", os.W_OK | os.X_OK):
        return Path(tmpdir).absolute()
    why = f"TMPDIR is {tmpdir}, which can't be written" if tmpdir else "TMPDIR is not set"
    try:
        found = Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise NoFolderError(
            f"there is no folder for what is temporary: {why}, and neither /tmp nor /var/tmp nor the working folder "
            f"can be written. {_SET_TMPDIR}"
        ) from error
    if tmpdir:
        event("temporary.elsewhere", level="warning", folder=str(found), why=why)
    return found


def _is_ours(path: Path) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


def _check_folder(path: Path, descriptor: int) -> None:
    found = os.fstat(descriptor)
    if found.st_uid != os.geteuid():
        raise _unsafe(path, f"it belongs to {_user(found.st_uid)}")
    if found.st_mode & _OTHERS_WRITE:
        mode = stat.filemode(found.st_mode)
        raise _unsafe(path, f"its mode is {mode}, so others may have put something into it")
    if found.st_mode & 0o077:
        # Others could read what is in it, but change nothing.
        os.fchmod(descriptor, 0o700)


def _check_file(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise _unsafe(path, "it is no file")
    if found.st_uid != os.geteuid():
        raise _unsafe(path, f"it belongs to {_user(found.st_uid)}")
    if found.st_nlink > 1:
        raise _unsafe(path, "it is a second name of a file that is elsewhere too")


def _why(error: OSError, name: str, folder: int) -> str:
    """What is at ``name``, which could not be opened, in words."""
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return error.strerror or str(error)
    kind = "a symbolic link" if stat.S_ISLNK(found.st_mode) else stat.filemode(found.st_mode)
    return f"it is {kind} of {_user(found.st_uid)}"


def _unsafe(path: Path, why: str) -> UnsafeFolderError:
    return UnsafeFolderError(
        f"{path} is not safe to use: {why}. Nothing was read from it or written to it. Look at what it is and remove "
        "it, or set XDG_RUNTIME_DIR or TMPDIR to a folder that only this user can write"
    )


def _unusable(path: Path, error: OSError) -> NoFolderError:
    return NoFolderError(
        f"{path} can't be made: {error.strerror or error}. Set XDG_RUNTIME_DIR or TMPDIR to a folder that this user can"
        " write"
    )


def _user(number: int) -> str:
    try:
        return f"the user {pwd.getpwuid(number).pw_name} ({number})"
    except KeyError:
        return f"the user {number}"


def _plain(name: str) -> str:
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise ValueError(f"{name!r} is no name of a file in a folder")
    return name


_SET_CACHE = "Set XDG_CACHE_HOME to a folder that this user alone can write"


def kept_folders(name: str, environ: Mapping[str, str]) -> Iterator[Path]:
    """Folders that may keep ``name``, the best first: in the user's cache, else beside temporary files. None is
    made.
    """
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
    """The first of :func:`kept_folders` that can be made, is this user's own and writable; None if there is none."""
    return next((path for path in kept_folders(name, environ) if why_unusable(path) is None), None)


def needed_folder(name: str, environ: Mapping[str, str], filled: Callable[[Path], bool] = lambda _: False) -> Path:
    """Like :func:`kept_folder`, but raises if there is none. A folder that is ``filled`` need not be writable.

    A folder other than the user's cache is logged. Raises NoFolderError, which says why each folder can't be used.
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
    """Call this before importing matplotlib. It gives a user without a home a cache folder, so that matplotlib searches
    the fonts once, not at each start, and does not warn.
    """
    home = _home(environ)
    if "MPLCONFIGDIR" in environ or (home is not None and os.access(home, os.W_OK)):
        return
    if (folder := kept_folder("matplotlib", environ)) is not None:
        environ["MPLCONFIGDIR"] = str(folder)


def why_unusable(path: Path) -> str | None:
    """Why nothing can be kept in the folder ``path``, in words. None when it can; then the folder exists."""
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
    """The user's home, which need not exist; None if the user has no home."""
    home = environ.get("HOME", "")
    if not home:
        try:
            home = pwd.getpwuid(os.geteuid()).pw_dir
        except KeyError:
            return None
    return Path(home) if Path(home).is_absolute() else None
