"""One call: who calls, its parts, and its body within the limits."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope

from headrace.gateway.connections import WHOLE
from headrace.gateway.idempotency import Once, once_of
from headrace.gateway.problems import ProblemError, busy, invalid
from headrace_schemas.headers import JSON, TRACEPARENT, TRACESTATE, Headers
from headrace_schemas.trace_context import trace_headers

if TYPE_CHECKING:
    from headrace.gateway.access import Identity
    from headrace.gateway.gateway import Gateway


DISCARD_S = 2.0


class BodyReader:
    """Reads the bodies of calls: each of at most ``most`` bytes and within ``limit_s``, together at most ``most_held``.

    ``setting`` is where an operator sets ``most``, if anywhere.
    """

    def __init__(self, most: int, limit_s: float, most_held: int, setting: str | None = None) -> None:
        self._most = most
        self._limit_s = limit_s
        self._most_held = most_held
        self._setting = setting
        self.held = 0

    async def read(self, receive: Receive, announced: str | None, *, whole: bool = False) -> bytes:
        """The body, which counts as held until it is released. ``announced`` is its header content-length; a ``whole``
        one has come already.

        Raises ProblemError where it is too large (413), too slow (408) or too much is held (503), and ClientDisconnect.
        """
        try:
            size = int(announced or 0)
        except ValueError:
            size = 0
        if whole:
            return await self._read(receive, size)
        try:
            async with asyncio.timeout(self._limit_s):
                return await self._read(receive, size)
        except TimeoutError:
            raise ProblemError(
                HTTPStatus.REQUEST_TIMEOUT,
                "slow-body",
                f"The body did not come within {self._limit_s:g} s.",
                limit=self._limit_s,
                headers={"connection": "close"},
            ) from None

    async def _read(self, receive: Receive, announced: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        more, whole = True, False
        try:
            while more:
                part, more = await _next_part(receive)
                if max(size + len(part), announced) > self._most:
                    await _discard(receive, self._most, more=more)
                    raise self._too_large()
                if self.held + len(part) > self._most_held:
                    await _discard(receive, self._most, more=more)
                    raise busy("Too many bodies are held now.", 1.0)
                size += len(part)
                self.held += len(part)
                parts.append(part)
            whole = True
        finally:
            if not whole:
                self.release(size)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def release(self, size: int) -> None:
        """A body of ``size`` bytes is held no more."""
        self.held -= size

    def _too_large(self) -> ProblemError:
        setting = "" if self._setting is None else f" ({self._setting})"
        return ProblemError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "too-large",
            f"The body has more than {self._most:,} bytes{setting}.",
            field="body",
            limit=self._most,
            headers={"connection": "close"},
        )


class Call:
    """``headers`` has names in lower case, of several the first; ``params`` are the parts of the path in braces,
    unquoted.
    """

    def __init__(
        self,
        gateway: Gateway,
        scope: Scope,
        receive: Receive,
        headers: Mapping[str, str],
        identity: Identity,
        params: Mapping[str, str],
    ) -> None:
        self.gateway = gateway
        self.headers = headers
        self.identity = identity
        self.params = params
        self.once: Once | None = None
        """What the header Idempotency-Key asks, known with the body."""
        self._scope = scope
        self._receive = receive
        self._held = 0

    @property
    def trace(self) -> Headers:
        """The trace that its texts belong to: that of its span, else the caller's, if there is one."""
        return self.gateway.tracer.current or (trace_of(self._scope) if TRACEPARENT in self.headers else ())

    @property
    def request(self) -> Request:
        """The rest of the call, for whoever needs more than headers and body."""
        return Request(self._scope, self._receive)

    @property
    def content_type(self) -> str:
        """The media type of the body, in lower case and without parameters; "" where none is named."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    async def body(self) -> bytes:
        """The body. Raises ProblemError as BodyReader.read does, and for an Idempotency-Key that is none (422)."""
        whole = self._scope.get(WHOLE, False)
        body = await self.gateway.bodies.read(self._receive, self.headers.get("content-length"), whole=whole)
        self._held += len(body)
        given = self.headers.get("idempotency-key")
        if given is not None:
            self.once = once_of(given, self.identity.tenant, self.request.url.path, self.content_type, body)
        return body

    def seconds(self, name: str, *, default: float, most: float) -> float:
        """A number of seconds in the query, from 0 to ``most``. Raises ProblemError."""
        given = self.request.query_params.get(name)
        if given is None:
            return default
        try:
            found = float(given)
        except ValueError:
            found = -1.0
        if not 0 <= found <= most:
            raise invalid(f"{name} is a number of seconds from 0 to {most:g}.", field=name, limit=most)
        return found

    def release(self) -> None:
        """The body is held no more."""
        self.gateway.bodies.release(self._held)
        self._held = 0


async def _next_part(receive: Receive) -> tuple[bytes, bool]:
    """The next part of a body, and whether there are more. Raises ClientDisconnect."""
    message = await receive()
    if message["type"] != "http.request":
        raise ClientDisconnect
    return message.get("body", b""), message.get("more_body", False)


def trace_of(scope: Scope) -> Headers:
    """The trace context of a call as headers of a record, without what is malformed; () where there is none."""
    found = [value for name, value in scope["headers"] if name == b"traceparent"]
    if len(found) != 1:
        return ()
    state = b",".join(value for name, value in scope["headers"] if name == b"tracestate")
    return trace_headers(((TRACEPARENT, found[0]), (TRACESTATE, state)))


async def _discard(receive: Receive, most: int, *, more: bool) -> None:
    """Take what a caller still sends, for a while: one that is cut off while it sends sees no reply."""
    try:
        async with asyncio.timeout(DISCARD_S):
            while more and most >= 0:
                part, more = await _next_part(receive)
                most -= len(part)
    except TimeoutError:
        return


def json_response(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A reply of JSON."""
    return Response(msgspec.json.encode(content), status, headers, JSON)
