"""The client's errors, and the checks of its arguments, each of which names the argument in its error.

Arguments are checked before anything is done, and the client goes on with the value that a check returns. A subclass of
a text or of bytes, as numpy and enumerations have them, becomes a plain one, because encoders take no other. Numbers
may be numpy's. An iterator is walked once.
"""

from __future__ import annotations

import numbers
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from headrace.core.answer_log import Place
from headrace.core.errors import UserError
from headrace.core.fields import LARGEST, LONGEST_S, FieldError, conform
from headrace.core.text import given_as
from headrace.kafka.interface import Headers, Outgoing
from headrace_schemas.headers import MAX_TIMEOUT_MS
from headrace_schemas.paths import RequestShape, compile_copy, compile_shape
from headrace_schemas.records import ClassifyRequest


class ArgumentError(UserError, TypeError, ValueError):
    """An argument has a value that is not allowed. The message begins with the argument's name."""

    exit_code = 2


class MisuseError(UserError, RuntimeError):
    """The client can't be used in this way: entered twice, on another event loop, in another process, in its own
    thread.

    The message says what to do instead.
    """


class NoAnswerError(UserError, TimeoutError):
    """The answer did not come in time. The request may still be answered later, unless its timeout says otherwise."""


class LostAnswerError(UserError):
    """Later requests were answered and this request was not: the answer log has a hole here."""


class AnswerLogError(UserError):
    """The answer log is not the one that was read or written before: a topic was cut or made anew."""


class AnswersEndedError(UserError):
    """The client has stopped reading answers; the message says why. The request may still be answered."""


class ClientClosedError(AnswersEndedError):
    """The client was closed, by the end of its ``async with``, during a call or before it.

    A client that was not entered yet counts as closed too.
    """


LARGEST_OFFSET: Final = 2**63 - 1


def check_instance(name: str, given: object, kinds: type | tuple[type, ...], allowed: str) -> None:
    """Raise ArgumentError unless ``given`` is one of ``kinds``."""
    if not isinstance(given, kinds):
        raise ArgumentError(f"{name}: {allowed} is needed, not {given_as(given)}.")


def fitting(name: str, given: object, kind: Any) -> Any:
    """``given``, if the kind of setting ``kind`` allows it. Raises ArgumentError otherwise."""
    try:
        return conform(given, kind)
    except FieldError as fault:
        raise ArgumentError(f"{name}: {fault}.") from None


def plain_text(name: str, given: object) -> str:
    """The text as a plain str. Raises ArgumentError for anything else."""
    if type(given) is str:
        return given
    check_instance(name, given, str, "a text")
    # Not str(): an enumeration writes its member's name there.
    return str.__str__(given)


def whole_number(name: str, given: object, *, least: int = 0, most: int = LARGEST) -> int:
    """The whole number from ``least`` to ``most``. Raises ArgumentError for anything else; a bool is no number."""
    try:
        number = None if isinstance(given, bool) else operator.index(given)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or not least <= number <= most:
        raise ArgumentError(f"{name}: a whole number from {least} to {most} is needed, not {given_as(given)}.")
    return number


def seconds(name: str, given: object, *, least: float = 0.0, most: float = LONGEST_S) -> float:
    """The number of seconds from ``least`` to ``most``. Raises ArgumentError for anything else."""
    # The first of these costs a tenth of what asking an abstract class does, for each request.
    if type(given) not in (float, int) and (isinstance(given, bool) or not isinstance(given, numbers.Real)):
        raise ArgumentError(f"{name}: a number of seconds is needed, not {given_as(given)}.")
    try:
        number = float(given)  # type: ignore[arg-type]
    except OverflowError:
        number = float("inf")
    if not least <= number <= most:
        allowed = f"from {least:g} to {most:g} seconds are allowed"
        raise ArgumentError(f"{name}: {given_as(given)} s is out of range: {allowed}.")
    return number


def answer_timeout(given: object) -> float:
    """For how many seconds a request is worth answering, within the wire's bounds. Raises ArgumentError."""
    return seconds("timeout", given, least=0.001, most=MAX_TIMEOUT_MS / 1000)


def waiting_timeout(given: object) -> float:
    """The same for a caller that waits for the answer: None is refused, because the wait could last for ever."""
    if given is None:
        raise ArgumentError(
            "timeout: None would wait for ever for an answer that may never come; give a number of seconds, at most "
            f"{MAX_TIMEOUT_MS // 1000}."
        )
    return answer_timeout(given)


def partition_numbers(name: str, given: Any) -> frozenset[int]:
    """The partition numbers, at least one. Raises ArgumentError for anything else."""
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise ArgumentError(f"{name}: a list of partition numbers is needed, not {given_as(given)}.")
    found = frozenset(whole_number(name, number) for number in given)
    if not found:
        raise ArgumentError(f"{name}: there is none in it, so nothing would ever be read; None reads all of them.")
    return found


def places_by_partition(name: str, given: Mapping[Any, Any]) -> dict[int, Place]:
    """Where to begin in each partition. Raises ArgumentError for anything but places by partition number."""
    return {whole_number(name, partition): _place(name, place) for partition, place in given.items()}


def _place(name: str, given: object) -> Place:
    if not isinstance(given, Place):
        return Place(whole_number(name, given, most=LARGEST_OFFSET))
    position = whole_number(f"{name}.position", given.position, most=LARGEST_OFFSET)
    highest = given.highest
    return Place(position, None if highest is None else whole_number(f"{name}.highest", highest, most=LARGEST_OFFSET))


def request_of(request: object, request_id: object) -> bytes | ClassifyRequest:
    """The request to send: bytes as they are, or a ClassifyRequest of plain texts. Raises ArgumentError for anything
    else.
    """
    if isinstance(request, str):
        return ClassifyRequest(text=plain_text("request", request), id=_id("id", request_id))
    if not isinstance(request, bytes | ClassifyRequest):
        raise ArgumentError(f"request: a text, bytes or a ClassifyRequest is needed, not {given_as(request)}.")
    if request_id is not None:
        raise ArgumentError("id: it is for a text; this record brings its own.")
    if isinstance(request, bytes):
        return bytes(request)
    # msgspec checks no types when a struct is made by its constructor.
    return ClassifyRequest(text=plain_text("request.text", request.text), id=_id("request.id", request.id))


def _id(name: str, given: object) -> str | None:
    return None if given is None else plain_text(name, given)


def check_requests(requests: object) -> None:
    """Raise ArgumentError unless ``requests`` are many."""
    one = isinstance(requests, str | bytes | ClassifyRequest | Outgoing | Mapping)
    if one or not isinstance(requests, Iterable):
        raise ArgumentError(f"requests: a list or another iterable of requests is needed, not {given_as(requests)}.")


def record_of(given: Outgoing) -> Outgoing:
    """A record that the caller made. Raises ArgumentError where a part of it can't be sent."""
    value, key, stamp = given.value, given.key, given.timestamp_ms
    if value is not None:
        check_instance("request.value", value, bytes, "bytes")
    if key is not None:
        check_instance("request.key", key, bytes, "bytes")
    if stamp is not None:
        whole_number("request.timestamp_ms", stamp, most=LARGEST_OFFSET)
    return Outgoing(value, key, header_pairs(given.headers, "request.headers"), stamp) if given.headers else given


def request_shape(given: object) -> RequestShape:
    """The shape, with its parts checked. Raises ArgumentError for a shape that no request can be written in."""
    if not isinstance(given, RequestShape):
        raise ArgumentError(f"shape: a RequestShape is needed, not {given_as(given)}.")
    for field in msgspec.structs.fields(RequestShape):
        fitting(f"shape.{field.name}", getattr(given, field.name), field.type)
    try:
        compile_shape(given)
        compile_copy(given)
    except ValueError as error:
        raise ArgumentError(f"shape: {error}.") from None
    return given


def key_bytes(key: object) -> bytes | None:
    """The key as bytes, or None. Raises ArgumentError for anything else."""
    if key is None or type(key) is bytes:
        return key
    if isinstance(key, bytes):
        return bytes(key)
    check_instance("key", key, str, "a text, bytes or None")
    try:
        return plain_text("key", key).encode()
    except UnicodeEncodeError:
        raise ArgumentError(f"key: {given_as(key)} can't be written as UTF-8.") from None


def header_pairs(headers: object, name: str = "headers") -> Headers:
    """Pairs of a name and bytes. Raises ArgumentError for anything else."""
    if not isinstance(headers, list | tuple):
        raise ArgumentError(f'{name}: a list of pairs such as [("tenant", b"a")] is needed, not {given_as(headers)}.')
    return tuple(_header(name, header) for header in headers) if headers else ()


def _header(name: str, given: Sequence[Any]) -> tuple[str, bytes | None]:
    match given:
        case (str() as key, (bytes() | None) as value) if key.isascii() or _is_utf8(key):
            return plain_text(name, key), None if value is None else bytes(value)
    raise ArgumentError(f'{name}: each is a pair of a name and bytes such as ("tenant", b"a"), not {given_as(given)}.')


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= one <= "\udfff" for one in text)
