"""Where artifacts, jobs, checkpoints and outcomes may lie: below configured places, and nowhere else.

A URI is a program to whoever opens it: a scheme chooses code, ``::`` chains it, and ``..`` leads anywhere. Records name
URIs, and others may write records. So a URI is taken apart here, by our own few rules and by no driver, and becomes a
:class:`Location` only when nothing in it could mean two things and it lies below a place that the operator named. Only
locations can be opened (:mod:`headrace.model.store`). Nothing is decoded: a ``%`` stands for itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from urllib.parse import unquote

import msgspec

from headrace.model.errors import StoreError, StoreFault

SCHEMES = {"file": "file", "s3": "s3", "s3a": "s3", "gs": "gs", "az": "az", "abfs": "az", "memory": "memory"}
"""The schemes that are opened, and those of them that are other names of one."""
LONGEST = 2048
"""Characters that a URI may have."""

_LONGEST_SHOWN = 120
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_ESCAPED = re.compile(r"%[0-9a-fA-F]{2}")
# What an escape may not hide: whoever decodes it would read another path.
_HIDDEN = frozenset("./\\%:?#@*[]")
# What drivers read as something else than a name: versions, fragments, patterns.
_READ_BY_DRIVERS = frozenset("?#*[]")


class Place(msgspec.Struct, frozen=True):
    """A folder below which files may lie. ``folder`` are its names from the root; of an object store the first is the
    bucket.
    """

    scheme: str
    folder: tuple[str, ...]

    @property
    def uri(self) -> str:
        """The place as a URI, in its one spelling."""
        return _spelled(self.scheme, self.folder)


class Location(msgspec.Struct, frozen=True):
    """A file or folder below ``place``; ``below`` are the names that lead from there to it, at least one."""

    place: Place
    below: tuple[str, ...]

    @property
    def scheme(self) -> str:
        """One of the values of SCHEMES."""
        return self.place.scheme

    @property
    def names(self) -> tuple[str, ...]:
        """The names from the root, or the bucket, to it."""
        return self.place.folder + self.below

    @property
    def path(self) -> str:
        """Where it lies below its place."""
        return "/".join(self.below)

    @property
    def uri(self) -> str:
        """The location as a URI, in its one spelling."""
        return _spelled(self.scheme, self.names)

    def __str__(self) -> str:
        return self.uri

    def beside(self, ending: str) -> Location:
        """The file in the same folder that has ``ending`` behind this one's name."""
        return Location(self.place, (*self.below[:-1], self.below[-1] + ending))


class Places(msgspec.Struct, frozen=True):
    """The places that are allowed; ``by`` names in errors what allows them."""

    allowed: tuple[Place, ...]
    by: str = "store.allowed"

    def locate(self, uri: str) -> Location:
        """Where ``uri`` lies. Raises StoreError for a URI that is not opened here or lies below no place."""
        scheme, names = _apart(uri)
        for place in self.allowed:
            count = len(place.folder)
            if place.scheme == scheme and len(names) > count and names[:count] == place.folder:
                return Location(place, names[count:])
        known = ", ".join(place.uri for place in self.allowed) or "none"
        raise StoreError(
            f"{_shown(uri)} is refused: it lies below no allowed place ({self.by}: {known}). If it is yours, add its "
            "folder to store.allowed",
            StoreFault.REFUSED,
        )

    def has(self, uri: str) -> bool:
        """Whether ``uri`` lies below a place."""
        try:
            self.locate(uri)
        except StoreError:
            return False
        return True


def place_of(folder: str) -> Place:
    """The place that a setting names: a path, which may be relative, or a URI. Raises StoreError."""
    if "," in folder:
        raise _refused(folder, "it has a comma, by which lists of places are written")
    return Place(*_apart(absolute(folder)))


def places_of(folders: Sequence[str], by: str = "store.allowed") -> Places:
    """The places that the setting ``by`` names. Raises StoreError."""
    return Places(tuple(place_of(folder) for folder in folders), by)


def as_told(file: str) -> Location:
    """A file that the operator names on the command line: a path, or a URI; it may lie anywhere.

    Never use it for a URI from a record. Raises StoreError for what is no URI that is opened.
    """
    scheme, names = _apart(_absolute(file, os.path.realpath))
    if not names:
        raise _refused(file, "it names no file")
    return Location(Place(scheme, names[:-1]), names[-1:])


def absolute(path: str) -> str:
    """A URI as it is, and a path from the root, without `..`. Raises StoreError."""
    return _absolute(path, os.path.abspath)


def _absolute(path: str, resolve: Callable[[str], str]) -> str:
    try:
        return path if "://" in path else resolve(path)
    except FileNotFoundError:
        # Both ask for the current folder, and nothing else has to be there.
        raise _refused(path, "the folder that this runs in was removed") from None
    except (OSError, ValueError):
        raise _refused(path, "it is no path") from None


def _apart(uri: str) -> tuple[str, tuple[str, ...]]:
    """The scheme and the names of an absolute path or URI. Raises StoreError for what could mean two things."""
    if len(uri) > LONGEST:
        raise _refused(uri, f"it has {len(uri)} characters, allowed are {LONGEST}")
    if not uri.isprintable():
        raise _refused(uri, "it has characters that can't be printed")
    if "\\" in uri or "::" in uri:
        raise _refused(uri, "it has a backslash or ::, by which drivers are chained")
    _check_escapes(uri)
    spelled, separator, rest = uri.partition("://")
    if not separator:
        spelled, rest = "file", uri
    scheme = SCHEMES.get(spelled)
    if scheme is None:
        raise _refused(uri, f"allowed schemes are {', '.join(SCHEMES)}")
    if separator and _READ_BY_DRIVERS & set(rest):
        raise _refused(uri, "it has one of ? # * [ ], which drivers read as more than a name")
    if scheme == "file" and not rest.startswith("/"):
        raise _refused(uri, "a path has to be absolute, and file:// has no host: file:///FOLDER/FILE")
    names = tuple(rest.removeprefix("/").removesuffix("/").split("/")) if rest.strip("/") else ()
    if any(name in {"", ".", ".."} for name in names):
        raise _refused(uri, "it has an empty name, . or .. in its path")
    if scheme not in {"file", "memory"} and (rest.startswith("/") or not names or not _BUCKET.fullmatch(names[0])):
        raise _refused(uri, "it has to begin with the name of a bucket, without user, password or port")
    return scheme, names


def _check_escapes(uri: str) -> None:
    try:
        unquote(uri, errors="strict")
    except UnicodeDecodeError:
        raise _refused(uri, "it has a percent escape that is no UTF-8") from None
    for escape in _ESCAPED.findall(uri):
        character = chr(int(escape[1:], 16))
        if character in _HIDDEN or not (character.isprintable() or character >= "\x80"):
            raise _refused(uri, f"it hides a character behind {escape}")


def _refused(uri: str, why: str) -> StoreError:
    return StoreError(f"{_shown(uri)} is refused: {why}", StoreFault.REFUSED)


def _shown(uri: str) -> str:
    return repr(uri if len(uri) <= _LONGEST_SHOWN else uri[:_LONGEST_SHOWN] + "...")


def _spelled(scheme: str, names: tuple[str, ...]) -> str:
    return f"{scheme}://{'/' if scheme == 'file' else ''}{'/'.join(names)}"
