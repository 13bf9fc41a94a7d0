"""The limits of connections that uvicorn lacks: their number, the head of a call, and an answer that stays unread."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from headrace.process.logs import Recurring

WHOLE = "headrace.whole"
"""In the scope of a call whose body came with its head: nobody has to wait for it."""
CLOSE_S = 1.0
"""So long a peer may take to read the rest and, over TLS, to agree to the end; an idle one may never."""
HELD_BYTES = 64 * 1024
"""More than this is sent at once: the transport says when a peer reads too slowly."""

_TEXT = "text/plain; charset=utf-8"
_BODIES = {
    503: b"Too many connections. Come again in a second.\n",
    431: b"The head of the call is too large.\n",
    408: b"The head of the call did not come in time.\n",
}
_PHRASES = {503: "Service Unavailable", 431: "Request Header Fields Too Large", 408: "Request Timeout"}


class ConnectionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers, bytes and seconds, as the settings have them."""

    connections: int
    head_bytes: int
    head_s: float
    write_s: float


_too_many = Recurring("gateway.too_many_connections")
_Base: Any = AutoHTTPProtocol
"""Which of uvicorn's parsers it is depends on what is installed."""


class _Joining:
    """A transport that sends what is written in one turn of the event loop together: uvicorn writes a reply's head and
    body apart, and each would be a system call and a packet.
    """

    __slots__ = ("_held", "_held_bytes", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []
        self._held_bytes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def write(self, data: bytes) -> None:
        if not self._held:
            self._loop.call_soon(self._flush)
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > HELD_BYTES:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._held and not self._transport.is_closing():
            self._transport.write(b"".join(self._held))
        self._held.clear()
        self._held_bytes = 0


class _LimitedProtocol(_Base):  # type: ignore[misc]  # see above
    """A connection within ``limits``."""

    limits: ConnectionLimits

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(_Joining(transport, self.loop))
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        if len(self.connections) > self.limits.connections:
            _too_many.event(limit=self.limits.connections)
            self._refuse(503, b"retry-after: 1\r\nretry-after-ms: 1000\r\n")
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_came()
        self._written()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        before = self.cycle
        in_head = before is None or (before.response_complete and not before.more_body)
        super().data_received(data)
        if (cycle := self.cycle) is not before:
            self._head_came()
            cycle.scope[WHOLE] = not cycle.more_body
        elif in_head and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > self.limits.head_bytes:
                self._refuse(431)
            else:
                self._await_head()

    def shutdown(self) -> None:
        """End the connection, now or behind its call."""
        super().shutdown()
        if self.transport.is_closing():
            self.loop.call_later(CLOSE_S, self.transport.abort)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self.limits.write_s, self.transport.abort)

    def resume_writing(self) -> None:
        self._written()
        super().resume_writing()

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.limits.head_s, self._refuse, 408)

    def _head_came(self) -> None:
        self._head_bytes = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _written(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _refuse(self, status: int, headers: bytes = b"") -> None:
        self._head_came()
        body = _BODIES[status]
        head = f"HTTP/1.1 {status} {_PHRASES[status]}\r\ncontent-type: {_TEXT}\r\ncontent-length: {len(body)}\r\n"
        self.transport.write(head.encode() + headers + b"connection: close\r\n\r\n" + body)
        self.transport.close()
        # A peer that reads nothing would hold what is written.
        self.loop.call_later(CLOSE_S, self.transport.abort)


def limited(limits: ConnectionLimits) -> type[asyncio.Protocol]:
    """The protocol that uvicorn speaks here, within ``limits``."""
    return type("LimitedProtocol", (_LimitedProtocol,), {"limits": limits})
