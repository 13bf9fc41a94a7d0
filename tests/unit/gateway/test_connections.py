"""What uvicorn writes, as it is sent."""

from __future__ import annotations

import asyncio
from typing import Any

from headrace.gateway.connections import HELD_BYTES, _Joining


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
