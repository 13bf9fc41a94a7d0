"""One value of one key: from text to its type, and the type in words for who has to mend it."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import inspect

from headrace.core.secret import MASK, Secret

LONGEST_SHOWN = 80

# The types that settings have. Another one needs its words here first.
_WORDS: dict[type[inspect.Type], str] = {
    inspect.BoolType: "true or false",
    inspect.IntType: "a whole number",
    inspect.FloatType: "a number",
    inspect.StrType: "a text",
    inspect.CustomType: "a text",
    inspect.VarTupleType: "a list (in the environment and options: with commas)",
    inspect.DictType: "a map (in the environment and options: name=value with commas)",
}


class ValueRefusedError(Exception):
    """A value that does not fit its type. The message says what was expected and, unless secret, what it was."""


def to_type(value: object, wanted: Any, *, is_text: bool) -> object:
    """Convert ``value`` to the type ``wanted``. Raises ValueRefusedError.

    Text (environment, options) becomes a number or a truth value where that is wanted; a list has commas, a map
    ``name=value`` with commas. A file's values have types of their own and must have the right one.
    """
    info = inspect.type_info(wanted)
    try:
        parsed = _parse(value, info) if is_text and isinstance(value, str) else value
        return msgspec.convert(parsed, wanted, strict=not is_text, dec_hook=_secret)
    except (msgspec.ValidationError, ValueError) as error:
        shown = MASK if is_secret(info) else _cut(repr(value))
        # Without its cause: that could hold the value.
        raise ValueRefusedError(f"expected {in_words(info)}, got {shown}") from (None if is_secret(info) else error)


def in_words(info: inspect.Type) -> str:
    """Say what a type allows: "a whole number from 1 to 4096", "one of json, text"."""
    if isinstance(info, inspect.UnionType):
        return " or ".join(in_words(one) for one in info.types if not isinstance(one, inspect.NoneType))
    if isinstance(info, inspect.LiteralType):
        return "one of " + ", ".join(map(str, info.values))
    if isinstance(info, inspect.IntType | inspect.FloatType):
        return _WORDS[type(info)] + _range(info)
    return _WORDS[type(info)]


def is_secret(info: inspect.Type) -> bool:
    """Whether a value of this type must not be shown."""
    match info:
        case inspect.CustomType(cls=cls):
            return cls is Secret
        case inspect.UnionType(types=types):
            return any(is_secret(one) for one in types)
        case _:
            return False


def shown(value: object) -> str:
    """Show a value in the form in which it can be set; a secret as its mask."""
    match value:
        case None:
            return "(not set)"
        case bool():
            return str(value).lower()
        case tuple():
            return ",".join(map(str, value))
        case dict():
            return ",".join(f"{name}={one}" for name, one in value.items())
        case _:
            return str(value)


def _parse(text: str, info: inspect.Type) -> object:
    match info:
        case inspect.VarTupleType():
            return [part.strip() for part in text.split(",") if part.strip()]
        case inspect.DictType():
            pairs = [part.partition("=") for part in text.split(",") if part.strip()]
            if any(not equals for _, equals, _ in pairs):
                raise ValueError("a part has no =")
            return {name.strip(): value.strip() for name, _, value in pairs}
        case _:
            return text


def _secret(wanted: type, value: object) -> object:
    if wanted is Secret and isinstance(value, Secret):
        return value
    raise ValueError("a secret is a text")


def _range(info: inspect.IntType | inspect.FloatType) -> str:
    bounds = [
        f"{words} {bound}"
        for words, bound in (("above", info.gt), ("at least", info.ge), ("below", info.lt), ("at most", info.le))
        if bound is not None
    ]
    return f" {' and '.join(bounds)}" if bounds else ""


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "..."
