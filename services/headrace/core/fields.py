"""Types of the values that people give: bounds of numbers, kinds of text, secrets, and where reading begins.

A value is checked in the same way wherever it comes from: a file, the environment, an option or a call.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from ipaddress import ip_address
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec
from msgspec import Meta, inspect

from headrace.core.errors import UserError
from headrace.core.text import given_as

Start = Literal["earliest", "latest"] | int
"""The log's beginning, its end, or the first record from a time on, in milliseconds since the Unix epoch."""

ALLOWED: Final = "earliest, latest, or a time as ISO 8601 such as 2026-01-31T12:00:00Z (without a zone it is UTC)"
METAVAR: Final = "earliest|latest|TIME"

_START_WORDS: Final[dict[str, Literal["earliest", "latest"]]] = {
    "earliest": "earliest",
    "beginning": "earliest",
    "latest": "latest",
    "end": "latest",
}
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class StartError(UserError, ValueError):
    """A value names no start. The message has the value and the allowed ones."""

    exit_code = 2


def parse_start(given: object) -> Start:
    """Read a word, an ISO 8601 text or a datetime. Raises StartError.

    A time without a zone is in UTC, so that it means the same on every machine.
    """
    if isinstance(given, dt.datetime):
        return _milliseconds(given, given)
    if not isinstance(given, str):
        raise StartError(f"{given_as(given)} is no place to begin at: allowed are {ALLOWED}.")
    if (word := _START_WORDS.get(given)) is not None:
        return word
    try:
        moment = dt.datetime.fromisoformat(given)
    except ValueError:
        near = get_close_matches(given.strip().lower(), _START_WORDS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise StartError(f"{given_as(given)} is no place to begin at: allowed are {ALLOWED}.{hint}") from None
    return _milliseconds(moment, given)


def _milliseconds(moment: dt.datetime, given: object) -> int:
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=dt.UTC)
    # To Kafka negative times mean the log's ends.
    if (since := (aware - _EPOCH) // dt.timedelta(milliseconds=1)) < 0:
        raise StartError(f"{given_as(given)} lies before 1970, and no record does. For all there is, say earliest.")
    return since


MASK = "***"


class Secret:
    """A string that shows itself only through :meth:`reveal`. Equal secrets compare equal."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The string itself, for the call that needs it."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({MASK})"

    def __str__(self) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))


LONGEST_SHOWN: Final = 80
LONGEST_NAME: Final = 249
"""Kafka's limit for a topic's name, and ours for every other name."""
LARGEST: Final = 2**31 - 1
"""The largest whole number in most fields of Kafka's protocol."""
LONGEST_S: Final = 366 * 24 * 3600.0
_LONGEST_TEXT: Final = 4096
_LARGEST_PORT: Final = 65535

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?")


class FieldError(ValueError):
    """A value that is not allowed. The message says what was expected and, unless it is a secret, the value."""


class Kind(NamedTuple):
    """A kind of text: its description, and the test whether a text is of this kind."""

    words: str
    fits: Callable[[str], bool]


def plain(text: str) -> bool:
    """Whether a text fits on a line and can be sent: it has no control characters and no lone surrogates."""
    return text.isprintable() and len(text) <= _LONGEST_TEXT


def _is_name(text: str) -> bool:
    return bool(text.strip()) and plain(text) and len(text) <= LONGEST_NAME


def is_topic(text: str) -> bool:
    """Whether Kafka takes ``text`` as a topic's name."""
    return _TOPIC.fullmatch(text) is not None and text not in (".", "..")


def _is_host(text: str) -> bool:
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    elif ":" not in text:
        return _HOST.fullmatch(text) is not None and len(text) <= LONGEST_NAME
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_address(text: str) -> bool:
    host, colon, port = text.rpartition(":")
    digits = port.isascii() and port.isdigit() and len(port) <= len(str(_LARGEST_PORT))
    bare = ":" in host and not host.startswith("[")
    return bool(colon) and digits and 0 < int(port) <= _LARGEST_PORT and not bare and _is_host(host)


def _are_addresses(text: str) -> bool:
    return all(_is_address(one.strip()) for one in text.split(","))


def _is_start(text: str) -> bool:
    try:
        parse_start(text)
    except ValueError:
        return False
    return True


def _is_path(text: str) -> bool:
    return bool(text.strip()) and plain(text)


def _text(words: str, fits: Callable[[str], bool]) -> Any:
    return Meta(extra={"kind": Kind(words, fits)})


Topic = Annotated[
    str, _text(f"a topic's name (1 to {LONGEST_NAME} of letters, digits, '.', '_' and '-'; not '.' or '..')", is_topic)
]
Prefix = Annotated[
    str, _text("the beginning of topics' names (letters, digits, '.', '_' and '-')", lambda text: is_topic(f"{text}x"))
]
Name = Annotated[str, _text(f"a name of 1 to {LONGEST_NAME} characters that can be printed", _is_name)]
ModelName = Annotated[
    str,
    _text(
        f"a name of 1 to {LONGEST_NAME} letters, digits, '.', '_' and '-'", lambda text: bool(_TOPIC.fullmatch(text))
    ),
]
Place = Annotated[str, _text("a path or URI, not empty and without control characters", _is_path)]
Host = Annotated[str, _text("a host's name or IP address", _is_host)]
Address = Annotated[str, _text(f"host:port, with a port from 1 to {_LARGEST_PORT}", _is_address)]
Addresses = Annotated[
    str, _text(f"host:port, or several with commas between, each with a port from 1 to {_LARGEST_PORT}", _are_addresses)
]
StartText = Annotated[str, _text(ALLOWED, _is_start)]
Line = Annotated[str, _text(f"at most {_LONGEST_TEXT} characters that can be printed", plain)]

# The types of settings. A new type needs a description here.
_WORDS: dict[type[inspect.Type], str] = {
    inspect.BoolType: "true or false",
    inspect.IntType: "a whole number",
    inspect.FloatType: "a number",
    inspect.StrType: "a text",
    inspect.CustomType: "a text",
    inspect.VarTupleType: "a list (in the environment and options: with commas)",
    inspect.DictType: "a map (in the environment and options: name=value with commas)",
}


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A section of the settings. However it is made, it holds only values that its fields allow.

    Raises ValueError naming the field otherwise, as its own checks of combinations do.
    """

    def __post_init__(self) -> None:
        faults = []
        for field in msgspec.structs.fields(self):
            try:
                conform(getattr(self, field.name), field.type)
            except FieldError as fault:
                faults.append(f"{field.name}: {fault}")
        if faults:
            raise ValueError("; ".join(faults))


def conform(value: object, wanted: Any, *, strict: bool = True) -> object:
    """Convert ``value`` to the type ``wanted``; unless ``strict``, also text to numbers. Raises FieldError."""
    info = inspect.type_info(wanted)
    try:
        found: object = msgspec.convert(value, wanted, strict=strict, dec_hook=_secret)
    except (msgspec.ValidationError, ValueError, OverflowError) as error:
        # Without the cause, if it could hold a secret.
        raise refusal(value, info) from (None if is_secret(info) else error)
    if not _fits(found, info):
        raise refusal(value, info)
    return found


def refusal(value: object, info: inspect.Type) -> FieldError:
    """The error that says what ``info`` allows, and ``value`` unless it is a secret."""
    shown = MASK if is_secret(info) else given_as(value, LONGEST_SHOWN)
    return FieldError(f"expected {in_words(info)}, got {shown}")


def in_words(info: inspect.Type) -> str:
    """Say what a type allows: "a whole number from 1 to 4096", "one of json, text"."""
    match info:
        case inspect.Metadata(type=inner, extra=extra):
            return str(extra["kind"].words) if extra and "kind" in extra else in_words(inner)
        case inspect.UnionType(types=types):
            return " or ".join(in_words(one) for one in types if not isinstance(one, inspect.NoneType))
        case inspect.LiteralType(values=values):
            return "one of " + ", ".join(map(str, values))
        case inspect.IntType() | inspect.FloatType():
            return _WORDS[type(info)] + _range(info)
        case _:
            return _WORDS[type(info)]


def is_secret(info: inspect.Type) -> bool:
    """Whether a value of this type must not be shown."""
    return any(isinstance(one, inspect.CustomType) and one.cls is Secret for one in _parts(info))


def without_metadata(info: inspect.Type) -> inspect.Type:
    """The bare type; for an optional value, the type of the value."""
    around = inspect.NoneType | inspect.Metadata | inspect.UnionType
    return next(one for one in _parts(info) if not isinstance(one, around))


def _parts(info: inspect.Type) -> Iterator[inspect.Type]:
    yield info
    match info:
        case inspect.Metadata(type=inner):
            yield from _parts(inner)
        case inspect.UnionType(types=types):
            for one in types:
                yield from _parts(one)


def _fits(value: object, info: inspect.Type) -> bool:
    match value:
        case float():
            return math.isfinite(value)
        case str():
            kinds = [one.extra["kind"] for one in _parts(info) if isinstance(one, inspect.Metadata) and one.extra]
            return all(kind.fits(value) for kind in kinds) and (bool(kinds) or _encodes(value))
        case tuple():
            return all(not isinstance(one, str) or plain(one) for one in value)
        case dict():
            return all(not isinstance(one, str) or plain(one) for pair in value.items() for one in pair)
        case _:
            return True


def _encodes(text: str) -> bool:
    return not any("\ud800" <= one <= "\udfff" for one in text)


def _secret(wanted: type, value: object) -> object:
    if wanted is Secret and isinstance(value, Secret):
        return value
    raise ValueError("a secret is a text")


def _range(info: inspect.IntType | inspect.FloatType) -> str:
    bounds = [
        f"{words} {bound:.15g}" if isinstance(bound, float) else f"{words} {bound}"
        for words, bound in (("above", info.gt), ("at least", info.ge), ("below", info.lt), ("at most", info.le))
        if bound is not None
    ]
    return f" {' and '.join(bounds)}" if bounds else ""
