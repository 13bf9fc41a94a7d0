"""aiokafka's client outlasts brokers that come and go."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvloop
from aiokafka.conn import CloseReason
from aiokafka.errors import KafkaConnectionError

from headrace.kafka.aio.connection import CLOSED, LONGEST_S, Pace, make_lasting
from tests.support.turned_loop import run_turned
from tests.support.waiting import within


class Metadata:
    """aiokafka's client and cluster as far as pacing sees them."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.leaders: dict[str, tuple[set[int], set[int]]] = {"a": ({0, 1}, {0, 1})}

    async def _metadata_update(self, cluster: Any, topics: Any) -> bool:
        self.asked.append(asyncio.get_running_loop().time())
        return True

    async def _get_conn(self, node: int) -> None: ...

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return self.leaders.get(topic, (None, None))[0]

    def available_partitions_for_topic(self, topic: str) -> set[int] | None:
        return self.leaders.get(topic, (None, None))[1]


@pytest.mark.parametrize("topics", [{"a", "gone"}, {"gone"}, {"leaderless"}])
def test_metadata_that_is_asked_for_in_vain_is_asked_for_ever_more_seldom(topics: set[str]) -> None:
    async def main() -> None:
        client = Metadata()
        client.leaders["leaderless"] = ({0, 1}, {0})
        make_lasting(client)  # type: ignore[arg-type]
        begun = asyncio.get_running_loop().time()
        for _ in range(60):
            await client._metadata_update(client, topics)
        assert asyncio.get_running_loop().time() - begun > 50
        assert client.asked[3] - begun < 1
        client.leaders |= {topic: ({0}, {0}) for topic in topics}
        await client._metadata_update(client, topics)
        begun = asyncio.get_running_loop().time()
        for _ in range(60):
            await client._metadata_update(client, topics)
        assert asyncio.get_running_loop().time() == begun, "what is whole is not slowed down"

    run_turned(main())


def test_no_wait_for_metadata_is_longer_than_a_second() -> None:
    paced = Pace()
    for _ in range(100):
        paced.came(whole=False)
    assert paced.wait_s == LONGEST_S == 1.0


class Connection:
    """aiokafka's connection whose transport was closed before its reader noticed."""

    host, port = "127.0.0.1", 9092

    def __init__(self, fault: Exception | None) -> None:
        self.fault, self.closed_for = fault, None

    def send(self, request: str, expect_response: bool = True) -> str:
        if self.fault is not None:
            raise self.fault
        return f"{request} {expect_response}"

    def close(self, reason: object) -> None:
        self.closed_for = reason


@pytest.mark.parametrize("times", [1, 2])
async def test_a_write_to_a_connection_that_was_closed_is_an_error_that_aiokafka_outlasts(times: int) -> None:
    closed = RuntimeError(f"unable to perform operation on <TCPTransport closed=True>; {CLOSED}")
    of_node = {1: Connection(None), 2: Connection(closed), 3: Connection(RuntimeError("another")), 4: None}
    client = Metadata()

    async def connect(node: int, *, group: str) -> Connection | None:
        assert group == "quiet"
        return of_node[node]

    client._get_conn = connect  # type: ignore[method-assign, assignment]
    make_lasting(client)  # type: ignore[arg-type]
    for _ in range(times):
        good, broken, faulty, absent = [await client._get_conn(node, group="quiet") for node in of_node]  # type: ignore[call-arg]
    assert absent is None
    assert good.send("fetch", expect_response=False) == "fetch False"
    with pytest.raises(KafkaConnectionError, match=r"127\.0\.0\.1:9092 was closed"):
        broken.send("fetch")
    assert broken.closed_for == CloseReason.CONNECTION_BROKEN
    with pytest.raises(RuntimeError, match="another"):
        faulty.send("fetch")
    assert faulty.closed_for is None


def test_the_words_of_uvloop_for_a_write_to_a_closed_connection_are_known() -> None:
    async def main() -> None:
        lost = asyncio.Event()

        class Protocol(asyncio.Protocol):
            def connection_lost(self, exc: Exception | None) -> None:
                lost.set()

        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        transport, _ = await asyncio.get_running_loop().create_connection(Protocol, *address)
        transport.abort()
        async with within(10, "the end of the connection"):
            await lost.wait()
        with pytest.raises(RuntimeError, match=CLOSED):
            transport.write(b"x")
        server.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
