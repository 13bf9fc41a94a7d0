"""One value of one key: from the text of an environment or an option to its type, and back to a text."""

from __future__ import annotations

from typing import Any

from msgspec import inspect

from headrace.core.fields import conform, refusal, without_metadata


def to_type(value: object, wanted: Any, *, is_text: bool) -> object:
    """Convert ``value`` to the type ``wanted``. Raises FieldError.

    Text (environment, options) becomes a number or a truth value where that is wanted; a list has commas, a map
    ``name=value`` with commas. A file's values have types of their own and must have the right one.
    """
    parsed = value
    if is_text and isinstance(value, str):
        info = inspect.type_info(wanted)
        match without_metadata(info):
            case inspect.VarTupleType():
                parsed = [part.strip() for part in value.split(",") if part.strip()]
            case inspect.DictType():
                pairs = [part.partition("=") for part in value.split(",") if part.strip()]
                if any(not equals for _, equals, _ in pairs):
                    raise refusal(value, info)
                parsed = {name.strip(): one.strip() for name, _, one in pairs}
    return conform(parsed, wanted, strict=not is_text)


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
