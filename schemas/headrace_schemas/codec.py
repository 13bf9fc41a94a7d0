"""Bytes to records and back, in JSON, MessagePack and, for a request, bare text.

A decoder either returns a record or raises a :class:`~headrace_schemas.errors.WireError`, whatever the bytes are.
Content types are those that :func:`headrace_schemas.headers.content_type` returns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, TypeVar

import msgspec

from headrace_schemas.errors import (
    DECODING_FAULTS,
    BadBytesError,
    BadTypeError,
    IdTooLargeError,
    MissingFieldError,
    MissingTextError,
    TextTooLargeError,
    UnknownContentTypeError,
    behind_frame,
    from_decoding_fault,
)
from headrace_schemas.headers import JSON, MSGPACK, TEXT
from headrace_schemas.records import (
    ApiKey,
    ClassifyRequest,
    ClassifyResult,
    DeadLetter,
    IdempotentCall,
    LabelledText,
    MachineLabel,
    MachineLabelsRecord,
    ModelsRecord,
    Review,
    TeachingRecord,
    TextLease,
    Usage,
    WorkersRecord,
)

MAX_TEXT_BYTES: Final = 64 * 1024
MAX_ID_BYTES: Final = 1024

T = TypeVar("T")

_ENCODERS = {JSON: msgspec.json.Encoder().encode, MSGPACK: msgspec.msgpack.Encoder().encode}


def decode_foreign(decoder: Callable[[bytes], T], value: bytes, content_type: str, where: str = "") -> T:
    """Decode ``value``, which may be JSON behind a byte order mark or Confluent's framing.

    Raises a WireError naming ``where``, with what the bytes seem to be where they are no JSON.
    """
    try:
        return decoder(value)
    except DECODING_FAULTS as fault:
        if content_type != JSON:
            raise from_decoding_fault(fault, where) from fault
        inner = behind_frame(value)
        if inner is not None:
            try:
                return decoder(inner)
            except msgspec.ValidationError as inside:  # it is JSON, and not the right one
                raise from_decoding_fault(inside, where) from inside
            except DECODING_FAULTS as inside:
                if value[0]:
                    raise from_decoding_fault(inside, where, inner) from inside
        raise from_decoding_fault(fault, where, value) from fault


class RecordCodec(Generic[T]):
    """Encodes and decodes one type of record."""

    def __init__(self, record_type: object, name: str) -> None:
        self._name = name
        self._decoders: dict[str, Callable[[bytes], T]] = {
            JSON: msgspec.json.Decoder(record_type).decode,
            MSGPACK: msgspec.msgpack.Decoder(record_type).decode,
        }

    def encode(self, record: T, content_type: str = JSON) -> bytes:
        """Encode ``record``; raises UnknownContentTypeError, and BadBytesError for a string that UTF-8 can't hold."""
        encoder = _ENCODERS.get(content_type)
        if encoder is None:
            raise _unknown(content_type, self._name, "")
        try:
            return encoder(record)
        except UnicodeEncodeError as error:
            raise BadBytesError("value", f"holds what is no text: {error}") from error

    def decode(self, value: bytes | None, content_type: str = JSON, *, where: str = "") -> T:
        """Decode ``value``; raises a WireError naming ``where`` and the field, MissingFieldError for a null value."""
        decoder = self._decoders.get(content_type)
        if decoder is None:
            raise _unknown(content_type, self._name, where)
        if value is None:
            raise MissingFieldError("value", f"is null, and must be a {self._name}", where)
        return decode_foreign(decoder, value, content_type, where)


_REQUESTS: RecordCodec[ClassifyRequest] = RecordCodec(ClassifyRequest, "request")
_RESULTS: RecordCodec[ClassifyResult] = RecordCodec(ClassifyResult, "result")
_LABELS: RecordCodec[LabelledText] = RecordCodec(LabelledText, "labelled text")
_MODELS: RecordCodec[ModelsRecord] = RecordCodec(ModelsRecord, "record of classify.models")
_WORKERS: RecordCodec[WorkersRecord] = RecordCodec(WorkersRecord, "record of classify.workers")
_MACHINE_LABELS: RecordCodec[MachineLabelsRecord] = RecordCodec(
    MachineLabelsRecord, "record of classify.machine-labels"
)
_TEACHING: RecordCodec[TeachingRecord] = RecordCodec(TeachingRecord, "record of classify.teaching")
_KEYS: RecordCodec[ApiKey] = RecordCodec(ApiKey, "record of classify.keys")
_USAGE: RecordCodec[Usage] = RecordCodec(Usage, "record of classify.usage")
_IDEMPOTENCY: RecordCodec[IdempotentCall] = RecordCodec(IdempotentCall, "record of classify.idempotency")
_LEASES: RecordCodec[TextLease] = RecordCodec(TextLease, "lease of classify.idempotency")
_REVIEWS: RecordCodec[Review] = RecordCodec(Review, "review")
_DEAD_LETTERS: RecordCodec[DeadLetter] = RecordCodec(DeadLetter, "dead letter")

encode_result, decode_result = _RESULTS.encode, _RESULTS.decode
encode_label = _LABELS.encode
encode_models_record = _MODELS.encode
encode_workers_record = _WORKERS.encode
encode_machine_label = _MACHINE_LABELS.encode
encode_teaching_record = _TEACHING.encode
encode_api_key = _KEYS.encode
encode_usage = _USAGE.encode
encode_idempotent_call = _IDEMPOTENCY.encode
encode_text_lease = _LEASES.encode
encode_review, decode_review = _REVIEWS.encode, _REVIEWS.decode
encode_dead_letter, decode_dead_letter = _DEAD_LETTERS.encode, _DEAD_LETTERS.decode


def _decode_text(value: bytes) -> ClassifyRequest:
    return ClassifyRequest(text=value.decode())


_REQUEST_DECODERS: dict[str, Callable[[bytes], ClassifyRequest]] = {
    JSON: msgspec.json.Decoder(ClassifyRequest).decode,
    MSGPACK: msgspec.msgpack.Decoder(ClassifyRequest).decode,
    TEXT: _decode_text,
}


def decode_request(
    value: bytes | None, content_type: str = JSON, *, limit: int = MAX_TEXT_BYTES, where: str = ""
) -> ClassifyRequest:
    """Decode a request whose text has at most ``limit`` bytes of UTF-8, and its id :data:`MAX_ID_BYTES`.

    The hot path: for a value shorter than both limits it costs little more than msgspec's decoding.
    Raises a WireError naming ``where`` and the field, MissingTextError for a null value.
    """
    decoder = _REQUEST_DECODERS.get(content_type)
    if decoder is None:
        raise _unknown(content_type, "request", where)
    if value is None:
        raise MissingTextError("value", "is null (a tombstone), and must hold a text", where)
    request = decode_foreign(decoder, value, content_type, where)
    # No encoding is shorter than the text's UTF-8, so a short value needs no measuring.
    if len(value) > MAX_ID_BYTES or len(value) > limit:
        check_sizes(request, limit, where)
    return request


def encode_request(request: ClassifyRequest, content_type: str = JSON, *, limit: int = MAX_TEXT_BYTES) -> bytes:
    """Encode a request, checked as a worker will check it: raises what :func:`decode_request` would.

    Bare text carries no id: raises BadTypeError when there is one.
    """
    if content_type != TEXT:
        value = _REQUESTS.encode(request, content_type)
    elif request.id is not None:
        raise BadTypeError("id", f"a {TEXT} record has no place for an id; use {JSON} or {MSGPACK}")
    else:
        try:
            value = request.text.encode()
        except UnicodeEncodeError as error:
            raise BadBytesError("text", f"is no text: {error}") from error
    check_sizes(request, limit)
    return value


def decode_label(
    value: bytes | None, content_type: str = JSON, *, limit: int = MAX_TEXT_BYTES, where: str = ""
) -> LabelledText | None:
    """Decode a labelled text, None for the tombstone that erases it; raises a WireError as decode_request does."""
    if value is None:
        return None
    label = _LABELS.decode(value, content_type, where=where)
    check_text_size(label.text, limit, where)
    return label


def decode_models_record(value: bytes | None, content_type: str = JSON, *, where: str = "") -> ModelsRecord | None:
    """Decode a version, an alias or another by its ``kind``, None for the tombstone that removes it."""
    return None if value is None else _MODELS.decode(value, content_type, where=where)


def decode_workers_record(value: bytes | None, content_type: str = JSON, *, where: str = "") -> WorkersRecord | None:
    """Decode a claim, a raised batch or an attempt by its ``kind``, None for the tombstone that removes it."""
    return None if value is None else _WORKERS.decode(value, content_type, where=where)


def decode_machine_label(
    value: bytes | None, content_type: str = JSON, *, limit: int = MAX_TEXT_BYTES, where: str = ""
) -> MachineLabelsRecord | None:
    """Decode a machine label or a barred text by its ``kind``, None for the tombstone that erases it.

    Raises a WireError as decode_request does.
    """
    if value is None:
        return None
    record = _MACHINE_LABELS.decode(value, content_type, where=where)
    if isinstance(record, MachineLabel):
        check_text_size(record.text, limit, where)
    return record


def decode_teaching_record(value: bytes | None, content_type: str = JSON, *, where: str = "") -> TeachingRecord | None:
    """Decode what a labeller spent or how it stands by its ``kind``, None for the tombstone that removes it."""
    return None if value is None else _TEACHING.decode(value, content_type, where=where)


def decode_api_key(value: bytes | None, content_type: str = JSON, *, where: str = "") -> ApiKey | None:
    """Decode an API key, None for the tombstone that removes it; raises a WireError as decode_request does."""
    return None if value is None else _KEYS.decode(value, content_type, where=where)


def decode_usage(value: bytes | None, content_type: str = JSON, *, where: str = "") -> Usage | None:
    """Decode what an API key asked for, None for the tombstone that removes it; raises a WireError likewise."""
    return None if value is None else _USAGE.decode(value, content_type, where=where)


def decode_idempotent_call(value: bytes | None, content_type: str = JSON, *, where: str = "") -> IdempotentCall | None:
    """Decode a call with an Idempotency-Key, None for the tombstone that removes it; raises a WireError likewise."""
    return None if value is None else _IDEMPOTENCY.decode(value, content_type, where=where)


def decode_text_lease(value: bytes | None, content_type: str = JSON, *, where: str = "") -> TextLease | None:
    """Decode a lease of a text, None for a tombstone; raises a WireError likewise."""
    return None if value is None else _LEASES.decode(value, content_type, where=where)


def check_sizes(request: ClassifyRequest, limit: int, where: str = "") -> None:
    """Raise TextTooLargeError or IdTooLargeError when the text has more than ``limit`` bytes, or the id too many."""
    check_text_size(request.text, limit, where)
    if request.id is not None and (size := len(request.id.encode())) > MAX_ID_BYTES:
        raise IdTooLargeError("id", f"has {size} bytes of UTF-8, at most {MAX_ID_BYTES} are allowed", where)


def check_text_size(text: str, limit: int, where: str = "") -> None:
    """Raise TextTooLargeError when ``text`` has more than ``limit`` bytes of UTF-8."""
    if (size := len(text.encode())) > limit:
        raise TextTooLargeError("text", f"has {size} bytes of UTF-8, at most {limit} are allowed", where)


def _unknown(content_type: str, name: str, where: str) -> UnknownContentTypeError:
    return UnknownContentTypeError("content-type", f"{content_type!r} is no format of a {name}", where)
