"""What a teacher is: texts in, soft labels out, under an identity that changes when its answers could.

A teacher is named `encoder`, `encoder:PATH_OR_NAME`, `endpoint:URL` or `program:COMMAND`; :func:`parse_teacher` reads
such names. A text that a teacher fails on is said in :attr:`SoftLabels.failures`. What makes every further call useless
(a wrong key, a program that is not there) is raised as :class:`TeacherError`.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol
from urllib.parse import urlsplit

import msgspec

from headrace.core.errors import UserError
from headrace.core.text import given_as

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SHOWN = 80
_DIGEST_DIGITS = 16

Tell = Callable[[str, int, int], None]
"""Told of progress: of which work, how much of it is done, and how much there is."""


def silent(_work: str, _done: int, _total: int) -> None:
    """Tell nobody."""


class TeacherError(UserError):
    """A teacher that can't be used at all; the message names it and says what to do."""


class TeacherDiedError(TeacherError):
    """A teacher that ended over its first texts; another text may be answered."""


class TeacherNameError(TeacherError):
    """What names no teacher."""

    exit_code = 2


class Kind(enum.StrEnum):
    """What a teacher is."""

    ENCODER = "encoder"
    ENDPOINT = "endpoint"
    PROGRAM = "program"


class TeacherName(msgspec.Struct, frozen=True):
    """A teacher as an operator names it; ``target`` is a path or hub name, a URL or a command, None for the wheel."""

    kind: Kind
    target: str | None = None

    def __str__(self) -> str:
        return str(self.kind) if self.target is None else f"{self.kind}:{self.target}"


def parse_teacher(name: str) -> TeacherName:
    """Read a teacher's name. Raises TeacherNameError, which says what it should look like."""
    shown = given_as(name, _SHOWN)
    word, colon, target = name.partition(":")
    target = target.strip()
    try:
        kind = Kind(word.strip())
    except ValueError:
        raise TeacherNameError(
            f"{shown} names no teacher. Write encoder (the installed wheel), encoder:PATH_OR_NAME, endpoint:URL or"
            " program:COMMAND."
        ) from None
    if colon and not target:
        raise TeacherNameError(f"{shown} names a kind of teacher and nothing behind the colon.")
    if not target.isprintable():
        raise TeacherNameError(f"{shown} has characters in it that can't be printed.")
    if not target and kind is not Kind.ENCODER:
        example = "endpoint:http://127.0.0.1:8000/v1" if kind is Kind.ENDPOINT else "program:'python label.py'"
        raise TeacherNameError(f"{shown} needs {'an address' if kind is Kind.ENDPOINT else 'a command'}: {example}.")
    if kind is Kind.ENDPOINT:
        _check_address(target)
    return TeacherName(kind, target or None)


def _check_address(url: str) -> None:
    shown = given_as(url, _SHOWN)
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise TeacherNameError(f"endpoint:{shown} is no address: {error}.") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise TeacherNameError(f"endpoint:{shown}: an address begins with http:// or https:// and names a host.")
    if parts.username is not None or parts.password is not None:
        # Not shown: what stands there may be a password.
        raise TeacherNameError(
            "endpoint: the address holds a user or password. Leave them out, and give the key by teacher.api_key"
            " (the environment variable HEADRACE_TEACHER__API_KEY, or HEADRACE_TEACHER__API_KEY_FILE)."
        )
    if parts.query or parts.fragment:
        raise TeacherNameError(f"endpoint:{shown}: an address has no ? and no # in it; it ends as in https://host/v1.")


class Identity(NamedTuple):
    """Who answers: teachers of one ``version`` answer alike. It is kind and digest, and a part of keys on the log.

    ``prompt`` is the digest of the prompt, of a teacher that has one.
    """

    teacher: str
    version: str
    prompt: str | None = None


def digest_of(*parts: bytes) -> str:
    """The SHA-256 of ``parts``, each with its length before it, in hexadecimal."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8, "big") + part)
    return whole.hexdigest()


def identity_of(name: TeacherName, labels: Sequence[str], *parts: bytes, prompt: str | None = None) -> Identity:
    """The identity of a teacher with these ``labels``; ``parts`` are whatever else its answers depend on."""
    digest = digest_of(msgspec.json.encode(list(labels)), (prompt or "").encode(), *parts)
    return Identity(str(name), f"{name.kind}-{digest[:_DIGEST_DIGITS]}", prompt)


class Failure(msgspec.Struct, frozen=True):
    """Why a text has no label: a code that never changes, and a message without the text.

    ``passing``: the same text may be answered later (a busy or broken endpoint), so it is worth another try. ``wait_s``
    is how long the teacher asked to be left alone, in seconds. ``deadly``: the teacher died over the call, or had to be
    killed, and which of its texts was the reason is not known.
    """

    code: str
    message: str
    passing: bool = False
    wait_s: float = 0.0
    deadly: bool = False


class Spent(msgspec.Struct, frozen=True):
    """What calls took. ``cost`` is in the money that the prices of the settings are in."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.calls + other.calls,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cost + other.cost,
        )


class SoftLabels(msgspec.Struct, frozen=True, eq=False):
    """``scores`` float32[n, classes]: each row sums to 1; it is 0 where ``failures`` has the place of the text."""

    scores: NDArray[np.float32]
    failures: dict[int, Failure]
    spent: Spent = Spent()


class Teacher(Protocol):
    """Gives texts soft labels. ``labels`` are the columns of the scores; ``batch`` texts a call suit it.

    What costs nothing is within 0.
    """

    @property
    def identity(self) -> Identity: ...

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def batch(self) -> int: ...

    def within(self, texts: Sequence[str]) -> Spent:
        """What :meth:`label` of ``texts`` may take, estimated from above, without repeats: to be reserved before it."""
        ...

    async def label(self, texts: Sequence[str], tell: Tell = silent) -> SoftLabels:
        """Label ``texts``. Raises TeacherError when no further text can be labelled either."""
        ...

    async def close(self) -> None:
        """Give back what the teacher holds. It can't be used afterwards."""
        ...
