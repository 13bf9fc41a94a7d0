"""Callers of several gateways: a proxy in front of them, and calls of which it is kept what they were told."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx

from headrace.client import Client
from headrace_load.processes import slowness
from tests.support.random_versions import text


@asynccontextmanager
async def round_robin(addresses: Sequence[httpx.URL]) -> AsyncIterator[str]:
    """A proxy of TCP: each connection goes to the next gateway, or to the one after where that is gone."""
    turn = itertools.count()
    tasks: set[asyncio.Task[None]] = set()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while some := await reader.read(65536):
                writer.write(some)
                await writer.drain()
        writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = next(turn)
        for at in range(len(addresses)):
            url = addresses[(first + at) % len(addresses)]
            try:
                there, back = await asyncio.open_connection(url.host, url.port)
            except OSError:
                continue
            for one in (copy(reader, back), copy(there, writer)):
                task = asyncio.create_task(one)
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            return
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()


class Calls:
    """Calls of many texts, and what their caller was told."""

    def __init__(self, address: str) -> None:
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
        self.http = httpx.AsyncClient(base_url=address, timeout=120 * slowness(), limits=limits)
        self.answers: dict[str, dict[str, Any]] = {}
        """What was told of each text, by its id."""
        self.silent = 0
        self.statuses: set[int] = set()

    async def call(self, number: int) -> None:
        texts = [{"text": text(number * 4 + at), "id": f"q-{number}-{at}"} for at in range(4)]
        for one in texts[:2] if number % 3 else []:
            one["key"] = f"user-{number % 50}"
        headers = {"prefer": "respond-async"} if number % 2 else {}
        try:
            reply = await self.http.post("/v1/classify", json={"texts": texts, "timeout": 60}, headers=headers)
        except httpx.TransportError:
            self.silent += 1
            return
        self.statuses.add(reply.status_code)
        for one, asked in zip(reply.json().get("answers", ()), texts, strict=False):
            if "place" in one:
                self.answers[asked["id"]] = one

    async def finish(self) -> None:
        """Ask by their places for the answers that were not told."""

        async def ask(id_: str, one: dict[str, Any]) -> None:
            try:
                reply = await self.http.get(f"/v1/answers/{one['place']}", params={"wait": 60})
            except httpx.TransportError:  # a connection that was kept to a gateway which has ended since
                reply = await self.http.get(f"/v1/answers/{one['place']}", params={"wait": 60})
            assert reply.status_code == 200, (id_, reply.text)
            self.answers[id_] = reply.json()

        turn = asyncio.Semaphore(32)

        async def in_turn(id_: str, one: dict[str, Any]) -> None:
            async with turn:
                await ask(id_, one)

        pending = {id_: one for id_, one in self.answers.items() if one["status"] == "pending"}
        await asyncio.gather(*(in_turn(id_, one) for id_, one in pending.items()))

    async def check(self, client: Client) -> None:
        """Everything that was told is answered, as itself and once; ``client`` reads the whole log."""
        await self.finish()
        assert {one["status"] for one in self.answers.values()} == {"ok"}
        assert all(one["id"] == id_ for id_, one in self.answers.items())
        places = [one["place"] for one in self.answers.values()]
        assert len(set(places)) == len(places)
        seen: dict[str, str | None] = {}
        async with client.reader("beginning") as reader:
            while not set(places) <= seen.keys():
                for answer in await reader.read():
                    where = f"{answer.partition}@{answer.result.offset}"
                    assert where not in seen
                    assert answer.hole is None
                    seen[where] = answer.result.label
        assert all(seen[one["place"]] == one["label"] for one in self.answers.values())
