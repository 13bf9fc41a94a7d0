"""One call: who calls, its parts, and its body within the limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.requests import Request

from headrace.gateway.problems import ProblemError, busy, invalid

if TYPE_CHECKING:
    from headrace.gateway.access import Identity
    from headrace.gateway.gateway import Gateway


DISCARD_S = 2.0


class HeldBytes:
    """The bodies that are held at once, at most ``limit`` bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    def take(self, size: int) -> bool:
        """Whether ``size`` bytes more may be held; then they are."""
        if self.held + size > self.limit:
            return False
        self.held += size
        return True

    def release(self, size: int) -> None:
        self.held -= size


class Call:
    """``params`` are the parts of the path in braces, unquoted."""

    def __init__(self, gateway: Gateway, request: Request, identity: Identity, params: dict[str, str]) -> None:
        self.gateway = gateway
        self.request = request
        self.identity = identity
        self.params = params
        self._held = 0

    @property
    def content_type(self) -> str:
        """The media type of the body, in lower case and without parameters; "" where none is named."""
        return (self.request.headers.get("content-type") or "").partition(";")[0].strip().lower()

    async def body(self) -> bytes:
        """The body. Raises ProblemError where it is too large (413), too slow (408) or too much is held (503)."""
        settings = self.gateway.settings
        most = settings.max_body_bytes
        try:
            announced = int(self.request.headers.get("content-length") or 0)
        except ValueError:
            announced = 0
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(settings.body_timeout):
                stream = self.request.stream()
                async for part in stream:
                    size += len(part)
                    if max(size, announced) > most:
                        await _discard(stream, most)
                        raise _too_large(most)
                    if not self.gateway.held.take(len(part)):
                        await _discard(stream, most)
                        raise busy("Too many bodies are held now.", 1.0)
                    self._held += len(part)
                    parts.append(part)
        except TimeoutError:
            raise ProblemError(
                HTTPStatus.REQUEST_TIMEOUT,
                "slow-body",
                f"The body did not come within {settings.body_timeout:g} s.",
                limit=settings.body_timeout,
                headers={"connection": "close"},
            ) from None
        return parts[0] if len(parts) == 1 else b"".join(parts)

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
        self.gateway.held.release(self._held)
        self._held = 0


async def _discard(stream: AsyncIterator[bytes], most: int) -> None:
    """Take what a caller still sends, for a while: one that is cut off while it sends sees no reply."""
    try:
        async with asyncio.timeout(DISCARD_S):
            async for part in stream:
                most -= len(part)
                if most < 0:
                    return
    except TimeoutError:
        return


def _too_large(most: int) -> ProblemError:
    return ProblemError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "too-large",
        f"The body has more than {most:,} bytes (gateway.max_body_bytes).",
        field="body",
        limit=most,
        headers={"connection": "close"},
    )
