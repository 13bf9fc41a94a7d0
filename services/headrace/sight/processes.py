"""What a process says of itself at its admin port."""

from __future__ import annotations

import asyncio
import re

import msgspec

LIMIT_S = 3.0
MOST_BYTES = 4 * 1024 * 1024

_MODEL = re.compile(rb'^headrace_model_info\{version="([^"\\]{1,200})"\} 1', re.MULTILINE)


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """A process at ``address``: ``ready``, and if not, ``why``. ``version`` is that by which a worker answers."""

    address: str
    ready: bool
    why: str | None = None
    version: str | None = None


async def ask(address: str) -> Process:
    """Ask the admin port at ``address`` (host:port) for /readyz and /metrics, LIMIT_S seconds at most. Raises nothing:
    a port that does not answer is a process that is not ready.
    """
    try:
        async with asyncio.timeout(LIMIT_S):
            ready, said = await _get(address, "/readyz")
            _, metrics = await _get(address, "/metrics")
    except TimeoutError:
        return Process(address=address, ready=False, why=f"no answer within {LIMIT_S:g} s")
    except (OSError, ValueError, asyncio.IncompleteReadError) as error:
        return Process(address=address, ready=False, why=f"does not answer: {error}")
    version = _MODEL.search(metrics)
    return Process(
        address=address,
        ready=ready,
        why=None if ready else said.decode("utf-8", "replace").strip()[:500],
        version=None if version is None else version[1].decode("utf-8", "replace"),
    )


async def _get(address: str, path: str) -> tuple[bool, bytes]:
    """Whether the status is 200, and the body."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        read = bytearray()
        while len(read) < MOST_BYTES and (more := await reader.read(65536)):
            read += more
    finally:
        writer.close()
    head, _, body = bytes(read).partition(b"\r\n\r\n")
    return head.startswith((b"HTTP/1.1 200 ", b"HTTP/1.0 200 ")), body
