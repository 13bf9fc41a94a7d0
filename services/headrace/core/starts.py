"""Where reading begins: `earliest`, `latest` or a time. `beginning` and `end` are taken for the first two.

The one place that knows these words: settings, command lines and the client all ask here.
"""

from __future__ import annotations

import datetime as dt
from difflib import get_close_matches
from typing import Final, Literal

from headrace.core.errors import UserError
from headrace.core.printable import given_as

Start = Literal["earliest", "latest"] | int
"""The log's beginning, its end, or the first record from a time on, in milliseconds since the Unix epoch."""

ALLOWED: Final = "earliest, latest, or a time as ISO 8601 such as 2026-01-31T12:00:00Z (without a zone it is UTC)"
METAVAR: Final = "earliest|latest|TIME"

_WORDS: Final[dict[str, Literal["earliest", "latest"]]] = {
    "earliest": "earliest",
    "beginning": "earliest",
    "latest": "latest",
    "end": "latest",
}
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class StartError(UserError, ValueError):
    """What says no place to begin at. The message has what was given and what is allowed."""

    exit_code = 2


def parse_start(given: object) -> Start:
    """Read a word, an ISO 8601 text or a datetime. Raises StartError.

    A time without a zone is in UTC, so that it means the same on every machine.
    """
    if isinstance(given, dt.datetime):
        return _milliseconds(given, given)
    if not isinstance(given, str):
        raise StartError(f"{given_as(given)} is no place to begin at: allowed are {ALLOWED}.")
    if (word := _WORDS.get(given)) is not None:
        return word
    try:
        moment = dt.datetime.fromisoformat(given)
    except ValueError:
        near = get_close_matches(given.strip().lower(), _WORDS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise StartError(f"{given_as(given)} is no place to begin at: allowed are {ALLOWED}.{hint}") from None
    return _milliseconds(moment, given)


def _milliseconds(moment: dt.datetime, given: object) -> int:
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=dt.UTC)
    # Kafka takes negative times for its own marks of the log's ends.
    if (since := (aware - _EPOCH) // dt.timedelta(milliseconds=1)) < 0:
        raise StartError(f"{given_as(given)} lies before 1970, and no record does. For all there is, say earliest.")
    return since
