"""Dead letters on the wire: the request as it was, and why it failed in headers in the style of Kafka Connect."""

from __future__ import annotations

import re
from typing import Final

from headrace_schemas.errors import BadHeaderError
from headrace_schemas.headers import ATTEMPT, Headers, shown
from headrace_schemas.records import DeadLetter

# Reserved: a request's own headers with this prefix are not kept.
PREFIX: Final = "__headrace.errors."

MAX_MESSAGE_BYTES: Final = 2048

REPLAYED: Final = f"{PREFIX}replayed"
"""The only header of a mark: a record without a value behind a letter that was published again, with the letter's
offset in the same partition of the topic. The mark's key names the record that the letter is about, as
:func:`~headrace_schemas.errors.place` does, for other letters of it; marks of before have no key.
"""

# What a letter keeps of its record, where that is not the whole: the values of the header KEPT.
CUT: Final = "cut"
ENCRYPTED: Final = "encrypted"
NOTHING: Final = "nothing"
KEPT: Final = f"{PREFIX}kept"
SEALED_TO: Final = f"{PREFIX}sealed-to"
"""Of an encrypted letter: which public key it is sealed to."""
VALUE_BYTES: Final = f"{PREFIX}value-bytes"
"""Of a letter that keeps a beginning or nothing: how many bytes the value had."""

OFFSET: Final = f"{PREFIX}offset"
TIMESTAMP: Final = f"{PREFIX}timestamp"
MESSAGE: Final = f"{PREFIX}message"
_TOPIC, _PARTITION, _STAGE, _CODE, _ATTEMPT, _VERSION = (
    PREFIX + name for name in ("topic", "partition", "stage", "code", "attempt", "version")
)

_INTEGER = re.compile(rb"-?[0-9]{1,19}")


def dead_letter_headers(letter: DeadLetter) -> tuple[tuple[str, bytes | None], ...]:
    """Return the headers of the record that carries ``letter``: the request's own, then ours.

    A message longer than :data:`MAX_MESSAGE_BYTES` is cut, so that the record fits where the request fitted.
    """
    ours: tuple[tuple[str, bytes], ...] = (
        (_TOPIC, letter.topic.encode()),
        (_PARTITION, b"%d" % letter.partition),
        (OFFSET, b"%d" % letter.offset),
        (TIMESTAMP, b"%d" % letter.timestamp_ms),
        (_STAGE, letter.stage.encode()),
        (_CODE, letter.error.encode()),
        (MESSAGE, message_bytes(letter.message)),
        (_ATTEMPT, b"%d" % letter.attempt),
    )
    if letter.version is not None:
        ours = (*ours, (_VERSION, letter.version.encode()))
    return (*own_headers(letter.headers), *ours) if letter.headers else ours


def message_bytes(message: str, most: int = MAX_MESSAGE_BYTES) -> bytes:
    """Return ``message`` in UTF-8, cut to ``most`` bytes at the end of a character."""
    encoded = message.encode("utf-8", "backslashreplace")
    return encoded if len(encoded) <= most else encoded[:most].decode("utf-8", "ignore").encode()


def dead_letter_from_record(key: bytes | None, value: bytes | None, headers: Headers, *, where: str = "") -> DeadLetter:
    """Read a record of classify.dead-letters; raises BadHeaderError naming ``where`` and the header that is wrong."""
    ours = {name.removeprefix(PREFIX): header for name, header in headers if name.startswith(PREFIX)}
    return DeadLetter(
        topic=_text(ours, "topic", where),
        partition=_integer(ours, "partition", where),
        offset=_integer(ours, "offset", where),
        timestamp_ms=_integer(ours, "timestamp", where),
        stage=_text(ours, "stage", where),
        error=_text(ours, "code", where),
        message=_text(ours, "message", where),
        attempt=_integer(ours, "attempt", where) if "attempt" in ours else 1,
        version=_text(ours, "version", where) if "version" in ours else None,
        key=key,
        value=value,
        headers=own_headers(headers),
    )


def kept(headers: Headers) -> str | None:
    """Return what a dead letter with these ``headers`` keeps of its record: CUT, ENCRYPTED or NOTHING; None: all."""
    return _last(headers, KEPT)


def sealed_to(headers: Headers) -> str | None:
    """Return the id of the key that an encrypted letter is sealed to."""
    return _last(headers, SEALED_TO)


def replayed_mark(offset: int) -> tuple[tuple[str, bytes | None], ...]:
    """Return the headers of the mark that says that the letter at ``offset`` of its partition was published again."""
    return ((REPLAYED, b"%d" % offset),)


def replayed_offset(headers: Headers) -> int | None:
    """Return which letter a mark is about; None for the headers of anything else."""
    if len(headers) == 1 and headers[0][0] == REPLAYED and _INTEGER.fullmatch(headers[0][1] or b""):
        return int(headers[0][1] or b"")
    return None


def replay_headers(letter: DeadLetter) -> tuple[tuple[str, bytes | None], ...]:
    """Return the headers for publishing the request again: its own, and the attempt counter raised by one."""
    own = (header for header in own_headers(letter.headers) if header[0] != ATTEMPT)
    return (*own, (ATTEMPT, b"%d" % (letter.attempt + 1)))


def own_headers(headers: Headers) -> tuple[tuple[str, bytes | None], ...]:
    """Return the headers of the record itself that a letter keeps: all without the reserved :data:`PREFIX`."""
    return tuple(header for header in headers if not header[0].startswith(PREFIX))


def _last(headers: Headers, wanted: str) -> str | None:
    for name, value in reversed(headers):
        if name == wanted and value is not None:
            return value.decode("utf-8", "backslashreplace")
    return None


def _text(ours: dict[str, bytes | None], name: str, where: str) -> str:
    value = ours.get(name)
    if value is None:
        raise BadHeaderError(f"header {PREFIX}{name}", "is required and absent", where)
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise BadHeaderError(f"header {PREFIX}{name}", f"{shown(value)} is not UTF-8", where) from error


def _integer(ours: dict[str, bytes | None], name: str, where: str) -> int:
    value = ours.get(name)
    if value is None or not _INTEGER.fullmatch(value):
        raise BadHeaderError(f"header {PREFIX}{name}", f"{shown(value)} is not a whole number", where)
    return int(value)
