"""The limits of connections that uvicorn lacks: their number, the head of a call, and an answer that stays unread."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.types import Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from headrace.process.logs import Recurring

WHOLE = "headrace.whole"
"""In the scope of a call whose body came with its head: nobody has to wait for it."""
CLOSE_S = 1.0
"""So long a peer may take to read the rest and, over TLS, to agree to the end; an idle one may never."""
LAST_LOOK_S = 0.05
"""How much later the end of a wait for the peer counts: a loop that was held reads what came meanwhile before that."""
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
_OF_CONNECTION = frozenset({b"connection", b"transfer-encoding"})
"""Headers that say how the reply is sent."""


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

    def write_now(self, data: bytes) -> None:
        if self._held:
            self._held.append(data)
            self._flush()
        elif not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._held and not self._transport.is_closing():
            self._transport.write(b"".join(self._held))
        self._held.clear()
        self._held_bytes = 0


def sent_whole(send: Send, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> bool:
    """Send a reply in one write, as uvicorn would by two messages and at three times the cost.

    False where ``send`` is not uvicorn's own, or where the reply takes more than that; then nothing is sent.
    """
    cycle = getattr(send, "__self__", None)
    if type(cycle) is not RequestResponseCycle:
        return False
    if cycle.disconnected or cycle.response_started or cycle.flow.write_paused or cycle.scope["method"] == "HEAD":
        return False
    parts, length = [STATUS_LINE[status]], -1
    for name, value in (*cycle.default_headers, *headers):
        if b"\n" in value or b"\r" in value or name in _OF_CONNECTION:
            return False
        if name == b"content-length":
            length = int(value)
        parts += name, b": ", value, b"\r\n"
    if length != len(body):
        return False
    if not cycle.keep_alive:
        parts.append(b"connection: close\r\n")
    parts += b"\r\n", body
    transport: Any = cycle.transport  # a _Joining
    transport.write_now(b"".join(parts))
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True


_Base: Any = HttpToolsProtocol
"""Its transport and scope have more than their types say."""


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
        elif before is not None and before.response_complete and not self.transport.is_closing():
            # The rest of a body whose call was refused; uvicorn would wait for ever for the next call.
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_message_complete(self) -> None:
        super().on_message_complete()
        # uvicorn leaves this as it is when the reply came before the end of the body.
        self.cycle.more_body = False

    def timeout_keep_alive_handler(self) -> None:
        close = super().timeout_keep_alive_handler
        self.timeout_keep_alive_task = self.loop.call_later(LAST_LOOK_S, close)

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
            self._head_timer = self.loop.call_later(self.limits.head_s, self._look_for_head)

    def _look_for_head(self) -> None:
        self._head_timer = self.loop.call_later(LAST_LOOK_S, self._refuse, 408)

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
