"""What may leave this machine, and what is taken out of a text before it does."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import NamedTuple

from headrace.labeller.teachers.interface import TeacherError

# All repetitions are bounded, so that no text takes long.
_EMAIL = re.compile(r"[^\s@<>()\"',;:]{1,64}@[^\s@<>()\"',;:]{1,190}\.\w{2,24}")
_CARD = re.compile(r"(?<!\d)\d(?:[ -]?\d){12,18}(?!\d)")
# From nine digits on, or seven behind a plus: a date has eight. Longer numbers of an account are taken out with them.
_PHONE = re.compile(r"(?<!\w)(?:\+\(?\d(?:[ ./()-]{0,2}\d){6,18}|\(?\d(?:[ ./()-]{0,2}\d){8,18})(?!\w)")


def _is_card(digits: str) -> bool:
    """Whether the check digit is right (Luhn, US patent 2,950,048)."""
    numbers = [int(one) for one in digits if one.isdecimal()][::-1]
    return sum(sum(divmod(one * 2, 10)) if place % 2 else one for place, one in enumerate(numbers)) % 10 == 0


class _Pattern(NamedTuple):
    name: str
    pattern: re.Pattern[str]
    fits: Callable[[str], bool] = lambda _: True

    def replaced(self, found: re.Match[str]) -> str:
        return f"[{self.name}]" if self.fits(found[0]) else found[0]


# In this order: a card's number looks like a telephone's.
BUILT_IN = MappingProxyType(
    {one.name: one for one in (_Pattern("email", _EMAIL), _Pattern("card", _CARD, _is_card), _Pattern("phone", _PHONE))}
)
"""What can be redacted by name."""


class Redaction:
    """Replaces what matches by its name in brackets: ``names`` of :data:`BUILT_IN`, then ``patterns``, as `redacted`.

    Raises ValueError for a name that is none and a pattern that can't be used.
    """

    def __init__(self, names: Sequence[str] = tuple(BUILT_IN), patterns: Sequence[str] = ()) -> None:
        if unknown := [name for name in names if name not in BUILT_IN]:
            raise ValueError(f"{unknown[0]!r} is none of {', '.join(BUILT_IN)}")
        self._patterns = [one for name, one in BUILT_IN.items() if name in names]
        for number, pattern in enumerate(patterns, 1):
            try:
                compiled = re.compile(pattern)
            except (re.error, RecursionError, OverflowError) as error:
                raise ValueError(f"pattern {number} is no regular expression: {error}") from None
            if compiled.match("") is not None:
                raise ValueError(f"pattern {number} matches an empty text, so it would match everywhere")
            self._patterns.append(_Pattern("redacted", compiled))
        self.identity = "\n".join([one.name for one in self._patterns] + list(patterns)).encode()

    def __call__(self, text: str) -> str:
        for one in self._patterns:
            text = one.pattern.sub(one.replaced, text)
        return text


class Source(NamedTuple):
    """Where texts come from: a ``field`` of a topic's records, or a column of a file, which has no topic."""

    field: str
    topic: str | None = None

    def __str__(self) -> str:
        return self.field if self.topic is None else f"{self.topic}:{self.field}"


def check_leaving(source: Source, may_leave: Sequence[str], where: str) -> None:
    """Raise TeacherError unless the operator has named ``source`` among what may be sent to ``where``."""
    if str(source) in may_leave:
        return
    what = f"column {source.field!r}" if source.topic is None else f"field {source.field!r} of {source.topic}"
    named = ", ".join(may_leave) or "nothing"
    raise TeacherError(
        f"Nothing was sent: {where} is outside of headrace, and the {what} is not among what may leave"
        f" (teacher.may_leave names {named}). If these texts may go there, add --may-leave {source}, or the same to"
        " teacher.may_leave. --dry-run shows what would go."
    )
