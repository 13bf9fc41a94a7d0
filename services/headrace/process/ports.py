"""TCP ports of this machine: which are free, and why one can't be listened on."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Collection, Iterable
from contextlib import ExitStack

from headrace.core.errors import UserError
from headrace.process.lifecycle import EXIT_SETTINGS

LARGEST = 65535


class PortError(UserError):
    """A port can't be listened on. A restart would change nothing."""

    exit_code = EXIT_SETTINGS


def why_not(error: OSError) -> str:
    """Why an address can't be listened on, in words."""
    match error.errno:
        case errno.EADDRINUSE:
            return "another process listens there"
        case errno.EACCES | errno.EPERM:
            return "only an administrator may listen there"
        case errno.EADDRNOTAVAIL | None:
            # None: asyncio tried every address of the host, and this machine has none of them.
            return "this machine has no such address"
        case _:
            return error.strerror or str(error)


def check_free(host: str, ports: Iterable[int], *, who: str, advice: str) -> None:
    """Raise PortError for the first of ``ports`` on which ``host`` can't be listened on now.

    The message says that ``who`` can't listen, why, and ``advice``.
    """
    for port in ports:
        try:
            if port > LARGEST:
                raise OSError(errno.EINVAL, f"the largest port is {LARGEST}")  # noqa: TRY301 - said like the others
            listen(host, port).close()
        except OSError as error:
            raise PortError(f"{who} can't listen on {host}:{port}: {why_not(error)}. {advice}") from error


def free_ports(count: int, besides: Collection[int] = ()) -> list[int]:
    """``count`` ports of 127.0.0.1 on which nobody listens now, none of them in ``besides``."""
    found: list[int] = []
    with ExitStack() as held:
        while len(found) < count:
            # Each port is held until all are found, because a freed one may be given again.
            probe = held.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
            if port not in besides:
                found.append(port)
    return found


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; 0 is any free port. Raises OSError."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    probe = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":
            # As servers do: a port that was closed a moment ago is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        probe.listen()
    except OSError:
        probe.close()
        raise
    return probe
