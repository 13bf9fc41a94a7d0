"""The gateway under load, in one command on a real Apache Kafka that it starts (Java 17); some five minutes.

    python -m load.gateway --out FOLDER

One broker, one gateway and one worker, on this machine: what a waiting call holds, what an idle stream of events holds,
single texts by 64 connections, batches of 256 by 8; and the last two of FastAPI over PyTorch and over ONNX Runtime, by
one process each, where this Python has their packages (`make peers`). Network and texts are made, so no data is needed.
It writes gateway.json and gateway.md to --out. CPU is that of processes and holds on a busy machine; rates and waits
hold on a quiet one. The broker answers calls for a while before anything is measured: a Java machine that has just
started compiles its code on the cores that are measured. The load comes from this process, on the same two cores.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import itertools
import json
import os
import re
import resource
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import cast

import msgspec
import numpy as np
import psutil
import uvloop
from msgspec import Struct

from headrace.kafka.brokers import apache_broker
from headrace.process.children import Child, child
from headrace.process.ports import free_ports
from headrace_load.processes import found_in_time, headrace, running, until, within
from headrace_load.workload.spec import MadeTexts
from headrace_load.workload.texts import load_texts
from load.made import made_artifact

CONNECTIONS = 64
BATCH = 256
BATCHES_AT_ONCE = 8
WAITING = 2_000
STREAMS = 2_000
LIMIT_S = 120.0
WARM_UP_S = 40.0
"""In the first half minute under load compiling takes two fifths of the CPU of the broker, behind it a fifth."""
PEERS = {"FastAPI, PyTorch": "torch", "FastAPI, ONNX Runtime": "onnx"}


class Rate(Struct, frozen=True, kw_only=True):
    """Calls for some seconds by closed loops. ``cpu_us`` is the CPU of each process, in microseconds a text."""

    name: str
    texts_s: float
    p50_ms: float
    p99_ms: float
    failed: int
    cpu_us: dict[str, float]


class Held(Struct, frozen=True, kw_only=True):
    """What ``count`` of something hold in the gateway, in bytes each by its resident memory."""

    name: str
    count: int
    bytes_each: float


class Caller:
    """One connection of HTTP/1.1 that is kept. It reads heads by their length alone, so that it costs little."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, port: int) -> Caller:
        """A connection to this machine."""
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 24))

    def send(self, call: bytes) -> None:
        self._writer.write(call)

    async def head(self) -> bytes:
        return await self._reader.readuntil(b"\r\n\r\n")

    async def reply(self) -> tuple[int, bytes]:
        """Status and body of the next reply."""
        head = await self.head()
        found = _LENGTH.search(head)
        body = await self._reader.readexactly(int(found[1])) if found else b""
        return int(head[9:12]), body

    async def line(self) -> bytes:
        return await self._reader.readline()

    def close(self) -> None:
        self._writer.close()


_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


class _Asking(asyncio.Protocol):
    """A connection that sends the next of ``calls`` as soon as a reply is whole, until ``ends`` (monotonic).

    It runs on the cores that it measures, so it costs little: no stream, no task, and of a reply its status and length
    alone. ``waits`` gets the seconds of each call sent since ``begins``; ``done`` says how many of them failed.
    """

    def __init__(self, calls: Iterator[bytes], begins: float, ends: float, waits: list[float]) -> None:
        self.done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._calls = calls
        self._begins = begins
        self._ends = ends
        self._waits = waits
        self._failed = 0
        self._sent = 0.0
        self._head = b""
        self._left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._call()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server closed a connection of the load"))

    def data_received(self, data: bytes) -> None:
        if self._left:
            self._left -= len(data)
        else:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            found = _LENGTH.search(self._head, 0, end)
            self._left = end + 4 + (int(found[1]) if found else 0) - len(self._head)
            self._failed += self._head[9:12] != b"200" and self._sent >= self._begins
            self._head = b""
        if not self._left:
            if self._sent >= self._begins:
                self._waits.append(time.monotonic() - self._sent)
            self._call()

    def _call(self) -> None:
        self._sent = time.monotonic()
        if self._sent < self._ends:
            self._transport.write(next(self._calls))
        else:
            self.done.set_result(self._failed)
            self._transport.close()


def post(body: object) -> bytes:
    """A call that labels texts."""
    content = json.dumps(body).encode()
    head = (
        f"POST /v1/classify HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"content-length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def cpu_s(pids: Sequence[int]) -> float:
    """What processes have used, and their children but for our own, which are measured by themselves."""
    total = 0.0
    for pid in pids:
        root = psutil.Process(pid)
        for one in (root, *(() if pid == os.getpid() else root.children(recursive=True))):
            with suppress(psutil.NoSuchProcess):
                total += sum(one.cpu_times()[:2])
    return total


async def rate(
    name: str, port: int, calls: Sequence[bytes], texts: int, connections: int, seconds: float,
    processes: Mapping[str, Sequence[int]],
) -> Rate:  # fmt: skip
    """Send ``calls`` of so many ``texts`` in turn by closed loops; the first fifth of the time warms up."""
    waits: list[float] = []
    loop = asyncio.get_running_loop()
    begins = loop.time() + seconds / 5
    ends = begins + seconds
    turn = itertools.cycle(calls)
    asking = [
        (await loop.create_connection(lambda: _Asking(turn, begins, ends, waits), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]

    async def used() -> dict[str, float]:
        await asyncio.sleep(begins - time.monotonic())
        before = {who: cpu_s(pids) for who, pids in processes.items()}
        await asyncio.sleep(ends - time.monotonic())
        return {who: cpu_s(pids) - before[who] for who, pids in processes.items()}

    measured = asyncio.create_task(used())
    failed = sum(await asyncio.gather(*(one.done for one in asking)))
    spent = await measured
    count = max(1, len(waits) * texts)
    p50, p99 = (float(found) for found in np.percentile(waits or [0.0], (50, 99)))
    return Rate(
        name=name, texts_s=len(waits) * texts / seconds, p50_ms=p50 * 1000, p99_ms=p99 * 1000, failed=failed,
        cpu_us={who: seconds * 1e6 / count for who, seconds in spent.items()},
    )  # fmt: skip


def singles(texts: Sequence[str], single: Callable[[str], object]) -> list[bytes]:
    """Calls of one text each."""
    return [post(single(text)) for text in texts[:2000]]


def batches(texts: Sequence[str]) -> list[bytes]:
    """Calls of many texts each."""
    return [post({"texts": texts[at : at + BATCH]}) for at in range(0, BATCH * 16, BATCH)]


async def both(
    name: str, port: int, texts: Sequence[str], single: Callable[[str], object], seconds: float,
    processes: Mapping[str, Sequence[int]],
) -> list[Rate]:  # fmt: skip
    """Single texts and batches."""
    ones, many = singles(texts, single), batches(texts)
    return [
        await rate(f"{name}, single", port, ones, 1, CONNECTIONS, seconds, processes),
        await rate(f"{name}, {BATCH} a call", port, many, BATCH, BATCHES_AT_ONCE, seconds, processes),
    ]


async def settled_bytes(pid: int) -> int:
    """The resident memory of a process, once it has stopped growing."""
    process, last = psutil.Process(pid), 0
    while (now := process.memory_info().rss) > last * 1.001:
        last = now
        await asyncio.sleep(0.5)
    return now


async def waiting(port: int, pid: int, texts: Sequence[str]) -> tuple[Held, list[Caller]]:
    """Calls that wait for a worker which is not there yet, each on a connection of its own."""
    # What comes once, such as the first connections' code, belongs to none of them.
    early = [await Caller.connect(port) for _ in range(50)]
    for number, one in enumerate(early):
        one.send(post({"text": texts[number], "timeout": 300}))
    await asyncio.sleep(1)
    before = await settled_bytes(pid)
    callers = [await Caller.connect(port) for _ in range(WAITING)]
    for number, one in enumerate(callers):
        one.send(post({"text": texts[number % len(texts)], "timeout": 300}))
    await asyncio.sleep(3)
    held = (await settled_bytes(pid) - before) / WAITING
    return Held(name="waiting calls", count=WAITING, bytes_each=held), early + callers


async def streams(port: int, pid: int) -> Held:
    """Streams of events that are idle, then one answer that each of them has to get."""
    before = await settled_bytes(pid)
    callers = [await Caller.connect(port) for _ in range(STREAMS)]
    for one in callers:
        one.send(b"GET /v1/answers HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        head = await one.head()
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"a stream of events was refused: {head[:200]!r}")
    held = (await settled_bytes(pid) - before) / STREAMS
    asking = await Caller.connect(port)
    asking.send(post("one answer for all streams"))
    await asking.reply()

    async def answered(one: Caller) -> None:
        while not (await one.line()).startswith(b"event: answer"):
            pass

    async with within(LIMIT_S, "an answer on every stream of events"):
        await asyncio.gather(*map(answered, callers))
    for one in callers:
        one.close()
    return Held(name="idle streams", count=STREAMS, bytes_each=held)


@asynccontextmanager
async def peer(engine: str, model: Path, folder: Path) -> AsyncIterator[tuple[int, Child]]:
    """FastAPI over an export of the network."""
    [port] = free_ports(1)
    environ = {**os.environ, "MODEL": str(model), "ENGINE": engine, "THREADS": "1"}
    command = (sys.executable, "-m", "load.peers.fastapi_app", str(port))
    async with child(command, log=folder / f"{engine}.log", name=engine, environ=environ) as started:

        async def listens() -> bool:
            try:
                (await Caller.connect(port)).close()
            except OSError:
                return False
            return True

        await until(listens, f"the start of {engine}", LIMIT_S)
        yield port, started


async def measure(out: Path, seconds: float) -> list[Rate | Held]:
    """All of it, in turn."""
    made = MadeTexts()
    texts = load_texts(made, 0)
    model, log = out / "network.safetensors", out / "gateway.log"
    made_artifact(texts, model)
    found: list[Rate | Held] = []
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(apache_broker())
        at = ("--bootstrap", broker.bootstrap, "--set", "admin.port=0")
        await headrace(*at, "topics", "apply")
        door = ("--set", "gateway.max_connections=5000", "gateway", "--no-keys", "--port", "0")
        gateway = await stack.enter_async_context(running(*at, *door, log=log))
        listening = await found_in_time(gateway, lambda: re.search(rb"gateway\.listening .*:(\d+)", gateway.printed()))
        port, pid = int(listening[1]), gateway.process.pid
        held, callers = await waiting(port, pid, texts)
        found.append(held)
        worker = await stack.enter_async_context(running(*at, "worker", "--model", str(model), log=out / "worker.log"))
        replies = await asyncio.gather(*(one.reply() for one in callers))
        if any(status != 200 for status, _ in replies):
            raise SystemExit(f"calls that waited were answered {sorted({status for status, _ in replies})}")
        for one in callers:
            one.close()
        found.append(await streams(port, pid))
        processes: dict[str, list[int]] = {
            "gateway": [pid],
            "worker": [worker.process.pid],
            "broker": [node_pid for node in broker.processes if (node_pid := node.pid) is not None],
            "caller": [os.getpid()],
        }
        for connections, calls in ((CONNECTIONS, singles(texts, str)), (BATCHES_AT_ONCE, batches(texts))):
            await rate("warm-up", port, calls, 1, connections, WARM_UP_S / 2, {})
        found += await both("headrace", port, texts, str, seconds, processes)
    if missing := [name for name in ("fastapi", "onnxruntime") if importlib.util.find_spec(name) is None]:
        print(f"The peers are left out: this Python has no {', '.join(missing)} (`make peers`).")
        return found
    from load.peers.export import export  # noqa: PLC0415 - its packages are the peers' own

    export(model, texts[:2000], out / "exported")
    for name, engine in PEERS.items():
        async with peer(engine, out / "exported", out) as (port, started):
            spent = {"peer": [started.process.pid], "caller": [os.getpid()]}
            found += await both(name, port, texts, lambda text: {"texts": [text]}, seconds, spent)
    return found


def markdown(found: Sequence[Rate | Held]) -> str:
    """Both tables."""
    who = ("gateway", "worker", "broker", "peer", "caller")
    lines = [f"| | texts/s | p50 ms | p99 ms | failed | {' | '.join(f'CPU us a text, {one}' for one in who)} |"]
    lines.append("|---|" + "--:|" * (4 + len(who)))
    for one in found:
        if isinstance(one, Rate):
            spent = " | ".join(f"{one.cpu_us[name]:.1f}" if name in one.cpu_us else "–" for name in who)
            lines.append(
                f"| {one.name} | {one.texts_s:,.0f} | {one.p50_ms:.1f} | {one.p99_ms:.1f} | {one.failed} | {spent} |"
            )
    lines += ["", "| held by the gateway | at once | KB each |", "|---|--:|--:|"]
    lines += [f"| {one.name} | {one.count:,} | {one.bytes_each / 1000:.1f} |" for one in found if isinstance(one, Held)]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, write and show."""
    parser = argparse.ArgumentParser(prog="python -m load.gateway", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, default=Path("load-results/gateway"))
    parser.add_argument("--seconds", type=float, default=20.0, help="of each rate, behind its warm-up")
    options = parser.parse_args()
    out: Path = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 65536) if most > 0 else 65536, most))
    found = uvloop.run(measure(out, options.seconds))
    (out / "gateway.json").write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    (out / "gateway.md").write_text(markdown(found), encoding="utf-8")
    print(markdown(found))


if __name__ == "__main__":
    main()
