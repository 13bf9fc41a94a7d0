"""What the client is called with, checked before anything is done: each error names its argument."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from headrace.client.errors import ArgumentError
from headrace.core.printable import given_as
from headrace.kafka.interface import Headers, Outgoing
from headrace_schemas.headers import MAX_TIMEOUT_MS
from headrace_schemas.records import ClassifyRequest


def check_instance(name: str, given: object, kinds: type | tuple[type, ...], allowed: str) -> None:
    """Raise ArgumentError unless ``given`` is one of ``kinds``; a bool is no number."""
    if not isinstance(given, kinds) or isinstance(given, bool):
        raise ArgumentError(f"{name}: {allowed} is needed, not {given_as(given)}.")


def check_name(name: str, given: object) -> None:
    """Raise ArgumentError unless ``given`` is a text that isn't empty."""
    check_instance(name, given, str, "a text")
    if not given:
        raise ArgumentError(f"{name}: the text is empty.")


def check_number(name: str, given: object, *, least: int = 0) -> None:
    """Raise ArgumentError unless ``given`` is a whole number from ``least``."""
    check_instance(name, given, int, "a whole number")
    if isinstance(given, int) and given < least:
        raise ArgumentError(f"{name}: a whole number from {least} is needed, not {given}.")


def check_numbers(name: str, given: Any) -> None:
    """Raise ArgumentError unless ``given`` has partition numbers."""
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise ArgumentError(f"{name}: a list of partition numbers is needed, not {given_as(given)}.")
    for number in given:
        check_number(name, number)


def check_request(request: object, request_id: object) -> None:
    """Raise ArgumentError unless ``request`` is one, and unless ``request_id`` is a text that goes with a text."""
    check_instance("request", request, (str, bytes, ClassifyRequest), "a text, bytes or a ClassifyRequest")
    if request_id is None:
        return
    check_instance("id", request_id, str, "a text")
    if not isinstance(request, str):
        raise ArgumentError("id: it is for a text; this record brings its own.")


def check_requests(requests: object) -> None:
    """Raise ArgumentError unless ``requests`` are many."""
    one = isinstance(requests, str | bytes | ClassifyRequest | Outgoing | Mapping)
    if one or not isinstance(requests, Iterable):
        raise ArgumentError(f"requests: a list or another iterable of requests is needed, not {given_as(requests)}.")


def key_bytes(key: object) -> bytes | None:
    """The key as it is sent. Raises ArgumentError for what is none."""
    if key is None or isinstance(key, bytes):
        return key
    check_instance("key", key, str, "a text, bytes or None")
    try:
        return str(key).encode()
    except UnicodeEncodeError:
        raise ArgumentError(f"key: {given_as(key)} can't be written as UTF-8.") from None


def check_headers(headers: Headers) -> None:
    """Raise ArgumentError unless ``headers`` are pairs of a name and bytes."""
    if not isinstance(headers, list | tuple):
        raise ArgumentError(f'headers: a list of pairs such as [("tenant", b"a")] is needed, not {given_as(headers)}.')
    for header in headers:
        match header:
            case (str(), bytes() | None):
                continue
        raise ArgumentError(
            f'headers: each is a pair of a name and bytes such as ("tenant", b"a"), not {given_as(header)}.'
        )


def timeout_milliseconds(timeout: float) -> int:
    """How long a request is worth answering, from seconds. Raises ArgumentError outside of what the wire allows."""
    check_instance("timeout", timeout, (int, float), "a number of seconds")
    if math.isfinite(timeout) and 1 <= (milliseconds := round(timeout * 1000)) <= MAX_TIMEOUT_MS:
        return milliseconds
    allowed = f"from 0.001 to {MAX_TIMEOUT_MS / 1000:g} seconds are allowed"
    raise ArgumentError(f"timeout: {timeout} s is out of range: {allowed}.")
