"""What goes wrong, as a caller is told of it: problem details (RFC 9457) that name the field and the limit."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from http import HTTPStatus
from typing import TypeVar

import msgspec
from starlette.responses import Response

from headrace.gateway.bodies import Answer, BadBodyError, decoded

T = TypeVar("T")

PROBLEM_JSON = "application/problem+json"
LONGEST_WAIT_S = 300.0
TYPE = "urn:headrace:problem:"


class ProblemDetails(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a call failed. ``type`` ends in a code that never changes; ``detail`` is for people.

    ``field`` is the part of the call that is wrong, ``limit`` what it exceeds. ``answers`` has the texts that were
    published nevertheless, each with its answer or its place. ``error`` and ``error_type`` are where clients of Text
    Embeddings Inference, Hugging Face and the Open Inference Protocol look for words.
    """

    type: str
    title: str
    status: int
    detail: str
    error: str
    error_type: str
    field: str | None = None
    limit: float | int | None = None
    answers: tuple[Answer, ...] = ()


class ProblemError(Exception):
    """A call that is not answered as asked. ``wait_s`` is in how many seconds to come again."""

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        detail: str,
        *,
        field: str | None = None,
        limit: float | None = None,
        wait_s: float | None = None,
        answers: Sequence[Answer] = (),
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.field = field
        self.limit = limit
        self.wait_s = wait_s
        self.answers = tuple(answers)
        self.headers = headers or {}

    def response(self) -> Response:
        """The problem as JSON, with the headers that say when to come again."""
        details = ProblemDetails(
            type=TYPE + self.code,
            title=self.status.phrase,
            status=self.status.value,
            detail=self.detail,
            error=self.detail,
            error_type=_error_type(self.status),
            field=self.field,
            limit=self.limit,
            answers=self.answers,
        )
        headers = {**self.headers, **({} if self.wait_s is None else retry_headers(self.wait_s))}
        return Response(msgspec.json.encode(details), self.status.value, headers, PROBLEM_JSON)


def retry_headers(wait_s: float) -> dict[str, str]:
    """``Retry-After`` in whole seconds and ``retry-after-ms``, which clients of OpenAI's kind read."""
    wait_s = min(max(wait_s, 0.001), LONGEST_WAIT_S)
    return {"retry-after": str(math.ceil(wait_s)), "retry-after-ms": str(math.ceil(wait_s * 1000))}


def _error_type(status: HTTPStatus) -> str:
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        return "Overloaded"
    return "Backend" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "Validation"


def invalid(detail: str, *, field: str | None = None, limit: float | None = None) -> ProblemError:
    """A body that was read and can't be meant."""
    return ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", detail, field=field, limit=limit)


def not_found(detail: str) -> ProblemError:
    """What was asked for is not there, or is not the caller's to see: nobody can tell the two apart."""
    return ProblemError(HTTPStatus.NOT_FOUND, "not-found", detail)


def busy(detail: str, wait_s: float, *, code: str = "busy", answers: Sequence[Answer] = ()) -> ProblemError:
    """Too much waits, or something is away: come again in ``wait_s`` seconds."""
    return ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, code, detail, wait_s=wait_s, answers=answers)


def conflict(detail: str) -> ProblemError:
    """What was asked for can't be done as things stand now."""
    return ProblemError(HTTPStatus.CONFLICT, "conflict", detail)


def missing_role(roles: Collection[str]) -> ProblemError:
    """The caller's API key has none of the ``roles``."""
    wanted = " or ".join(sorted(roles))
    return ProblemError(HTTPStatus.FORBIDDEN, "role", f"This needs an API key with the role {wanted}.")


def bad_body(error: BadBodyError) -> ProblemError:
    """A body that is none of the forms."""
    if error.is_json:
        return invalid(str(error), field=error.field)
    return ProblemError(HTTPStatus.BAD_REQUEST, "bad-body", str(error), field="body")


def decode_body(decode: Callable[[bytes], T], body: bytes, forms: str) -> T:
    """The JSON of a body. Raises ProblemError, which names the field or the ``forms`` that are expected."""
    try:
        return decoded(decode, body, forms)
    except BadBodyError as error:
        raise bad_body(error) from None
