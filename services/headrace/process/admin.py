"""The admin port: /healthz, /readyz and /metrics over HTTP/1.1, on the process's own event loop.

It shares the loop on purpose: a hanging loop sends no heartbeats, and then /healthz must not answer either.
"""

from __future__ import annotations

import asyncio
import errno
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST, choose_encoder

from headrace.core.text import printable
from headrace.process.logs import event
from headrace.process.ports import LARGEST, PortError, why_not

T = TypeVar("T")
Check = Callable[[], str | None]
"""Returns None when all is well, otherwise what is wrong, for the person who reads the response."""

ADVICE = (
    "Set admin.port to another, to 0 for any free one, or not at all for the next free one (the host is admin.host)."
)
LONGEST_HEAD = 8192
MOST_CONNECTIONS = 32
HEAD_S = 2.0
"""How long a connection may take to send the head of its request. A Kubernetes probe gives up after one second."""
TIMEOUT_S = 5.0
"""How long a peer may take to read the response."""
LAST_LOOK_S = 0.05
"""How much later a limit counts: a loop that was held sees what came meanwhile before that."""

_TURNS = 9
"""For how many turns of the event loop a connection is safe from being cut. A request that came with its connection is
answered within seven. The loop accepts at most 100 connections a turn, so for a moment there can be that many more.
"""

_PLAIN = "text/plain; charset=utf-8"
_OPENMETRICS = "application/openmetrics-text"
_Reply = tuple[HTTPStatus, str, bytes]


@asynccontextmanager
async def admin_server(
    host: str, port: int, *, neighbours: int = 0, health: Check, ready: Check, registry: CollectorRegistry
) -> AsyncIterator[int]:
    """Serve while the block runs; yields the port, a free one for 0. Raises PortError when it can't be listened on.

    If another process has the port, the next ``neighbours`` ports are tried. ``health`` says whether the process should
    go on, ``ready`` whether it does its work.
    """
    admin = _Admin(health, ready, registry)
    server = await _open(admin, host, range(port, min(port + neighbours, LARGEST) + 1))
    found = int(server.sockets[0].getsockname()[1])
    if port in (0, found):
        event("admin.listening", host=host, port=found)
    else:
        event("admin.listening", host=host, port=found, instead_of=port, why="another process has that one")
    try:
        yield found
    finally:
        server.close()
        await admin.finish()


async def _open(admin: _Admin, host: str, ports: range) -> asyncio.Server:
    for port in ports:
        try:
            return await asyncio.start_server(admin.connected, host, port, limit=LONGEST_HEAD)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and port != ports[-1]:
                continue
            which = f"{host}:{port}" if port == ports[0] else f"{host}:{ports[0]} to {port}"
            raise PortError(f"The admin port can't listen on {which}: {why_not(error)}. {ADVICE}") from error
    raise PortError(f"There is no port {ports.start}. {ADVICE}")


class _Connection:
    """An open connection. ``heard``: the head of its request is there. ``settled``: it can be cut."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        # Without the port: all connections of an address count together.
        self.peer = str((writer.get_extra_info("peername") or ("",))[0])
        self.heard = False
        self.settled = False


class _Admin:
    def __init__(self, health: Check, ready: Check, registry: CollectorRegistry) -> None:
        self._health = health
        self._ready = ready
        self._registry = registry
        self._open: dict[asyncio.Task[None], _Connection] = {}  # in the order in which they came

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one more connection. When there are too many, some are cut, so that silent ones keep no probe out."""
        connection = _Connection(writer)
        task = asyncio.get_running_loop().create_task(self._serve(reader, connection))
        self._open[task] = connection
        task.add_done_callback(lambda _: self._open.pop(task, None))
        self._settle(connection, _TURNS)

    async def finish(self) -> None:
        """Cut the open connections."""
        still_open = dict(self._open)
        for task in still_open:
            self._cut(task)
        await asyncio.gather(*still_open, return_exceptions=True)

    def _settle(self, connection: _Connection, turns: int) -> None:
        """Wait ``turns`` turns of the loop, so that a probe is answered before connections are cut."""
        if turns:
            asyncio.get_running_loop().call_soon(self._settle, connection, turns - 1)
            return
        connection.settled = True
        while len(self._open) > MOST_CONNECTIONS:
            # The address with the most connections loses first: its silent ones before the others, and the oldest
            # first.
            [(peer, _)] = Counter(one.peer for one in self._open.values()).most_common(1)
            can_go = [task for task, one in self._open.items() if one.peer == peer and one.settled]
            if not can_go:
                return  # theirs settle in a moment
            self._cut(min(can_go, key=lambda task: self._open[task].heard))

    def _cut(self, task: asyncio.Task[None]) -> None:
        if (connection := self._open.pop(task, None)) is not None:
            connection.writer.transport.abort()
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, connection: _Connection) -> None:
        writer = connection.writer
        try:
            head = await _within(HEAD_S, reader.readuntil(b"\r\n\r\n"))
            connection.heard = True
            first, *headers = head.decode("latin-1").split("\r\n")
            method, _, rest = first.partition(" ")
            path = rest.partition(" ")[0].partition("?")[0]
            accepts = ",".join(line[7:] for line in headers if line[:7].lower() == "accept:")
            writer.write(_response(self._answer(method, path, accepts), with_body=method != "HEAD"))
            async with asyncio.timeout(TIMEOUT_S):
                await writer.drain()
        except asyncio.LimitOverrunError:
            too_long = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            writer.write(_response((too_long, _PLAIN, b"The request's head is too long.\n"), with_body=True))
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError):
            # The client is gone or too slow, so nobody can be told.
            writer.transport.abort()
        finally:
            writer.close()

    def _answer(self, method: str, path: str, accepts: str) -> _Reply:
        if method not in ("GET", "HEAD"):
            return HTTPStatus.METHOD_NOT_ALLOWED, _PLAIN, b"Only GET and HEAD are answered here.\n"
        match path:
            case "/healthz":
                return _checked(self._health())
            case "/readyz":
                return _checked(self._ready())
            case "/metrics":
                # Only OpenMetrics says of which traces values are. Prometheus accepts it.
                if _OPENMETRICS in accepts:
                    encode, content_type = choose_encoder(f"{_OPENMETRICS};version=1.0.0")
                    return HTTPStatus.OK, content_type, encode(self._registry)
                return HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(self._registry)
            case _:
                return HTTPStatus.NOT_FOUND, _PLAIN, b"Here are /healthz, /readyz and /metrics.\n"


async def _within(limit_s: float, work: Coroutine[Any, Any, T]) -> T:
    """What ``work`` returns. Raises TimeoutError when it takes longer.

    The limit passes while the loop is held, too, and what came meanwhile has not been read yet. So there is one more
    look at the connection behind the limit.
    """
    task = asyncio.ensure_future(work)
    try:
        for wait_s in (limit_s, LAST_LOOK_S):
            if (await asyncio.wait((task,), timeout=wait_s))[0]:
                return task.result()
    finally:
        task.cancel()
    raise TimeoutError


def _checked(fault: str | None) -> _Reply:
    if fault is None:
        return HTTPStatus.OK, _PLAIN, b"ok\n"
    return HTTPStatus.SERVICE_UNAVAILABLE, _PLAIN, f"{printable(fault)}\n".encode()


def _response(reply: _Reply, *, with_body: bool) -> bytes:
    status, content_type, body = reply
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode("latin-1") + (body if with_body else b"")
