"""Dead letters: a record that could not be used, kept whole, cut, encrypted or not at all, with the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from headrace.core.fields import LARGEST, Line, Section
from headrace.kafka.interface import Outgoing, Record, size_of
from headrace.security.keys import SEALING, PrivateKey, SealError, key_id, public_key_bytes, sealer, unseal
from headrace_schemas.dead_letters import CUT, ENCRYPTED, KEPT, NOTHING, SEALED_TO, VALUE_BYTES, dead_letter_headers
from headrace_schemas.errors import BadHeaderError, place
from headrace_schemas.headers import Headers, read_attempt
from headrace_schemas.records import DeadLetter
from headrace_schemas.topics import MAX_REQUEST_BYTES

Header = tuple[str, bytes | None]


class DeadLetterSettings(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What dead letters keep of a record. ``cut`` keeps key, headers and the value's first ``cut_bytes``; ``encrypted``
    seals key, headers and value to ``public_key``; ``nothing`` keeps only the place of the record and the reason.

    A letter that is cut can't be replayed. An encrypted one can, with the private key.
    """

    keep: Literal["whole", "cut", "encrypted", "nothing"] = "whole"
    """What a dead letter keeps of its record: all, a beginning, all encrypted, or its place and the reason."""
    cut_bytes: Annotated[int, Meta(ge=0, le=LARGEST)] = 256
    """How many bytes of the value keep = cut leaves."""
    public_key: Line | None = None
    """To whom encrypted dead letters are sealed, as `headrace dead-letters keygen` prints it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep == ENCRYPTED and self.public_key is None:
            raise ValueError("keep is encrypted, but there is no public_key; `headrace dead-letters keygen` makes one")
        if self.public_key is None:
            return
        if self.keep != ENCRYPTED:
            raise ValueError(f"public_key is set, but keep is {self.keep}, so nothing would be encrypted")
        try:
            public_key_bytes(SEALING, self.public_key)
        except ValueError as error:
            raise ValueError(f"public_key: {error}") from error


class Kept(Struct, frozen=True):
    """What is kept of a record, and headers that say what is left out."""

    value: bytes | None
    key: bytes | None
    headers: Headers
    said: tuple[Header, ...] = ()


Keep = Callable[[Record], Kept]


class _Sealed(Struct, frozen=True, array_like=True):
    """What is in the box: value, key and headers, in MessagePack."""

    value: bytes | None
    key: bytes | None
    headers: tuple[Header, ...]


def keep_whole(record: Record) -> Kept:
    """Keep all of ``record``."""
    return Kept(record.value, record.key, record.headers)


def keep_nothing(record: Record) -> Kept:
    """Keep nothing of ``record`` but the size of its value."""
    size = () if record.value is None else (_size(record.value),)
    return Kept(None, None, (), ((KEPT, NOTHING.encode()), *size))


def without_value(kept: Kept, size: int) -> Kept:
    """``kept`` without its value, for a record of ``size`` bytes whose value was discarded. Sealed, it would look
    whole.
    """
    said = ((KEPT, NOTHING.encode()), (VALUE_BYTES, b"%d" % size))
    sealed = any(name == SEALED_TO for name, _ in kept.said)
    return Kept(None, None, (), said) if sealed else Kept(None, kept.key, kept.headers, said)


def keeping(settings: DeadLetterSettings) -> Keep:
    """How ``settings`` want records kept."""
    if settings.keep == CUT:
        return _cut(settings.cut_bytes)
    if settings.keep == NOTHING:
        return keep_nothing
    if settings.keep == ENCRYPTED and settings.public_key is not None:
        return _encrypted(public_key_bytes(SEALING, settings.public_key))
    return keep_whole


def open_letter(letter: DeadLetter, key: PrivateKey) -> DeadLetter:
    """The whole of a ``letter`` that is encrypted. Raises SealError, naming the record."""
    where = place(letter.topic, letter.partition, letter.offset)
    try:
        opened = unseal(letter.value or b"", key, where.encode())
        held = msgspec.msgpack.decode(opened, type=_Sealed)
    except (SealError, msgspec.DecodeError) as error:
        raise SealError(f"The dead letter of {where} {error}") from error
    return msgspec.structs.replace(letter, value=held.value, key=held.key, headers=held.headers)


def _cut(most: int) -> Keep:
    def keep(record: Record) -> Kept:
        if (value := record.value) is None or len(value) <= most:
            return keep_whole(record)
        return Kept(value[:most], record.key, record.headers, ((KEPT, CUT.encode()), _size(value)))

    return keep


def _encrypted(public: bytes) -> Keep:
    seal, said = sealer(public), ((KEPT, ENCRYPTED.encode()), (SEALED_TO, key_id(public).encode()))

    def keep(record: Record) -> Kept:
        held = msgspec.msgpack.encode(_Sealed(record.value, record.key, tuple(record.headers)))
        where = place(record.topic, record.partition, record.offset)
        return Kept(seal(held, where.encode()), None, (), said)

    return keep


def _size(value: bytes) -> Header:
    return VALUE_BYTES, b"%d" % len(value)


def kept_of(record: Record, keep: Keep) -> Kept:
    """What the dead letter of ``record`` keeps of it.

    A record may have been compressed on its way and be larger than any that can be published. Of such a record nothing
    is kept. The letter of a record whose value was discarded keeps at most key and headers, and says so.
    """
    kept = keep(record) if size_of(record) <= MAX_REQUEST_BYTES else keep_nothing(record)
    return kept if record.discarded is None else without_value(kept, record.discarded.size)


def attempt_of(headers: Headers) -> int:
    """The attempt of a record that failed; 1 where the header can't be read."""
    try:
        return read_attempt(headers)
    except BadHeaderError:
        return 1


def dead_letter(
    record: Record, *, stage: str, error: str, message: str, version: str | None = None, keep: Keep = keep_whole
) -> Outgoing:
    """Make the dead letter of ``record``: what ``keep`` keeps of it, with headers that say where it lay, in which
    ``stage`` it failed and why.

    An attempt header that can't be read counts as a first attempt.
    """
    kept = kept_of(record, keep)
    letter = DeadLetter(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp,
        stage=stage,
        error=error,
        message=message,
        attempt=attempt_of(record.headers),
        version=version,
        headers=tuple(kept.headers),
    )
    return Outgoing(kept.value, kept.key, (*dead_letter_headers(letter), *kept.said))
