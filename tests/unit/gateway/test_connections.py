"""What uvicorn writes, as it is sent; and how long a connection may be silent."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from starlette.responses import Response
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from headrace.gateway.connections import (
    HELD_BYTES,
    LAST_LOOK_S,
    ConnectionLimits,
    _Joining,
    limited,
    sent_whole,
)


class Sent:
    """A transport that notes what is sent."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.parts.append(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


def joining() -> tuple[Any, Sent]:
    sent: Any = Sent()
    return _Joining(sent, asyncio.get_running_loop()), sent


async def test_head_and_body_of_a_reply_are_sent_together_and_in_order() -> None:
    transport, sent = joining()
    for reply in (b"first", b"second"):
        transport.write(b"head ")
        transport.write(reply)
        await asyncio.sleep(0)
        assert sent.parts.pop() == b"head " + reply
    assert not sent.parts


async def test_a_reply_is_sent_before_its_connection_is_closed() -> None:
    transport, sent = joining()
    transport.write(b"last")
    transport.close()
    assert (sent.parts, sent.closed) == ([b"last"], True)
    await asyncio.sleep(0)


async def test_nothing_is_sent_over_a_connection_that_was_cut_off_meanwhile() -> None:
    transport, sent = joining()
    transport.write(b"late")
    sent.closed = True
    await asyncio.sleep(0)
    assert not sent.parts


async def test_much_is_sent_at_once_so_that_the_transport_can_say_when_a_peer_is_slow() -> None:
    transport, sent = joining()
    transport.write(b"head")
    transport.write(bytes(HELD_BYTES))
    assert sent.parts == [b"head" + bytes(HELD_BYTES)]


class Exchange:
    """A call that waits for its reply: what is sent, and how often its end was told."""

    def __init__(self, method: str = "POST", *, keep_alive: bool = True) -> None:
        transport, self.sent = joining()
        self.ended = 0
        self.cycle = RequestResponseCycle(
            scope={"type": "http", "method": method},  # type: ignore[typeddict-item]
            transport=transport,
            flow=FlowControl(transport),
            logger=logging.getLogger("uvicorn.error"),
            access_logger=logging.getLogger("uvicorn.access"),
            access_log=False,
            default_headers=[(b"date", b"today")],
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=keep_alive,
            on_response=self._end,
        )

    def _end(self) -> None:
        self.ended += 1

    def send(self, response: Response) -> bool:
        return sent_whole(self.cycle.send, response.status_code, response.raw_headers, bytes(response.body))

    async def outcome(self) -> tuple[bytes, bool, int, bool]:
        await asyncio.sleep(0)
        return b"".join(self.sent.parts), self.sent.closed, self.ended, self.cycle.response_complete


@pytest.mark.parametrize("keep_alive", [True, False])
@pytest.mark.parametrize("response", [Response(b"{}", 200, {"x": "y"}, "application/json"), Response(None, 404)])
async def test_a_reply_in_one_write_has_the_bytes_and_the_end_that_uvicorn_gives_it(
    response: Response, *, keep_alive: bool
) -> None:
    ours, theirs = Exchange(keep_alive=keep_alive), Exchange(keep_alive=keep_alive)
    await response(theirs.cycle.scope, theirs.cycle.receive, theirs.cycle.send)  # type: ignore[arg-type]
    assert ours.send(response)
    assert len(ours.sent.parts) == 1
    assert await ours.outcome() == await theirs.outcome()


async def test_what_takes_more_than_one_write_is_left_to_uvicorn() -> None:
    plain = Response(b"text")
    away, paused, begun = Exchange(), Exchange(), Exchange()
    away.cycle.disconnected = paused.cycle.flow.write_paused = begun.cycle.response_started = True
    split = Response(b"text", headers={"x": "y\r\nz: forged"})
    closing, bodiless = Response(b"text", headers={"connection": "close"}), Response(status_code=204)
    left = [(Exchange("HEAD"), plain), (away, plain), (paused, plain), (begun, plain)]
    for exchange, response in [*left, *((Exchange(), one) for one in (split, closing, bodiless))]:
        assert not exchange.send(response)
        assert not exchange.sent.parts

    async def send(message: Any) -> None:
        del message

    assert not sent_whole(send, 200, plain.raw_headers, b"text")


class Peer(Sent):
    """The transport of a peer on this machine."""

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 9) if name in ("peername", "sockname") else None

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def abort(self) -> None:
        self.close()

    def sent(self) -> bytes:
        return b"".join(self.parts)


LIMITS = ConnectionLimits(connections=8, head_bytes=2048, head_s=600.0, write_s=600.0)
CALL = b"GET /there HTTP/1.1\r\nhost: localhost\r\n\r\n"
KEEP_ALIVE_S = 600


async def at_once(scope: Any, receive: Any, send: Any) -> None:
    """An application that replies before it has read the body."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


def connected() -> tuple[Any, Peer]:
    """A connection that was just made, as uvicorn calls it."""
    config = Config(at_once, log_config=None, timeout_keep_alive=KEEP_ALIVE_S, ws="none", lifespan="off")
    made: Any = limited(LIMITS)
    protocol = made(config=config, server_state=ServerState(), app_state={}, _loop=asyncio.get_running_loop())
    peer = Peer()
    protocol.connection_made(peer)
    return protocol, peer


async def turns() -> None:
    """What is due is done."""
    for _ in range(10):
        await asyncio.sleep(0)


class Later:
    """Moves the clock of the running loop on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        real_s, self._by_s = loop.time, 0.0
        monkeypatch.setattr(loop, "time", lambda: real_s() + self._by_s)

    async def __call__(self, seconds: float) -> None:
        self._by_s += seconds
        await turns()


@pytest.fixture
async def later(monkeypatch: pytest.MonkeyPatch) -> Later:
    return Later(monkeypatch)


async def test_a_call_that_came_while_the_loop_was_held_past_a_limit_is_answered(later: Later) -> None:
    protocol, peer = connected()
    # The timer runs before the loop reads what lies there.
    await later(LIMITS.head_s)
    protocol.data_received(CALL)
    await later(KEEP_ALIVE_S)
    protocol.data_received(CALL)
    await turns()
    assert peer.sent().count(b"HTTP/1.1 200 OK") == 2
    assert not peer.closed


async def test_a_connection_without_another_call_is_closed(later: Later) -> None:
    _, peer = connected()
    await later(LIMITS.head_s)
    await later(LAST_LOOK_S)
    assert peer.closed
    assert peer.sent().startswith(b"HTTP/1.1 408")
    idle, peer = connected()
    idle.data_received(CALL)
    await turns()
    await later(KEEP_ALIVE_S)
    await later(LAST_LOOK_S)
    assert peer.closed
    assert peer.sent().count(b"HTTP/1.1") == 1


REFUSED = b"POST /there HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\n\r\n"


async def test_a_connection_is_closed_that_idles_behind_a_body_that_came_after_its_reply(later: Later) -> None:
    protocol, peer = connected()
    protocol.data_received(REFUSED)
    await turns()
    for rest in (b"ab", b"cd"):
        protocol.data_received(rest)
    assert not peer.closed
    await later(KEEP_ALIVE_S)
    await later(LAST_LOOK_S)
    assert peer.closed


async def test_the_head_behind_a_body_that_came_after_its_reply_has_its_limits_too(later: Later) -> None:
    protocol, peer = connected()
    protocol.data_received(REFUSED)
    await turns()
    protocol.data_received(b"abcd")
    protocol.data_received(CALL)
    await turns()
    assert peer.sent().count(b"HTTP/1.1 200 OK") == 2
    protocol.data_received(REFUSED)
    await turns()
    protocol.data_received(b"abcd")
    protocol.data_received(b"GET /there HTTP/1.1\r\nx-pad: " + b"p" * LIMITS.head_bytes)
    await turns()
    assert peer.sent().endswith(b"The head of the call is too large.\n")
    assert peer.closed
