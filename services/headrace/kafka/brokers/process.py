"""A broker as a child process: it ends with its handle, and on Linux with its parent even if that is killed."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from headrace.core.errors import UserError
from headrace.kafka.aio.admin import AioAdmin
from headrace.kafka.interface import KafkaError
from headrace.kafka.settings import KafkaSettings
from headrace.process.child_process import ending_with_parent
from headrace.process.ports import check_free, free_ports

POLL_S = 0.05
LOG_TAIL_LINES = 25


class BrokerStartError(UserError):
    """A broker can't be started; the message says what is missing or what the broker printed last."""


HOST = "127.0.0.1"


def broker_ports(first: int | None, nodes: int) -> list[int]:
    """The ports of ``nodes`` brokers: ``first`` and those behind it, or free ones. Raises PortError for one taken."""
    if first is None:
        return free_ports(nodes)
    ports = [first + node for node in range(nodes)]
    check_free(
        HOST,
        ports,
        who="The broker",
        advice="Is one running already? --port takes another; without it the broker takes a free one.",
    )
    return ports


class BrokerProcess:
    """One broker process, its output going to ``log_file``. It is not bound to an event loop."""

    def __init__(self, argv: Sequence[str], log_file: Path) -> None:
        self.log_file = log_file
        self._argv = list(argv)
        self._process: subprocess.Popen[bytes] | None = None
        self._log_began = 0
        """Where the log was when the process was started; a log that is kept holds former starts too."""

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it (again). Raises BrokerStartError when the program can't be run."""
        with self.log_file.open("ab") as log:
            self._log_began = log.tell()
            try:
                self._process = subprocess.Popen(  # noqa: S603 - our own argument list, no shell
                    ending_with_parent(self._argv, signal.SIGKILL),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C is for us; we end the broker in our own order
                )
            except OSError as error:
                raise BrokerStartError(f"{self._argv[0]} can't be run: {error}") from error

    def send(self, number: signal.Signals) -> None:
        if self.running and self._process is not None:
            self._process.send_signal(number)

    async def end(self, number: signal.Signals = signal.SIGTERM, limit_s: float = 10.0) -> None:
        """Send ``number`` and wait for the end; what lives longer than ``limit_s`` is killed."""
        process = self._process
        if process is None:
            return
        self.send(number)
        self.send(signal.SIGCONT)  # a paused process could not end
        if not await _ended(process, limit_s):
            process.kill()
            await _ended(process, limit_s)

    def log_tail(self) -> str:
        """Return the last lines that the broker printed."""
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])

    def start_error(self, reason: str) -> BrokerStartError:
        if b"Address already in use" in self.log_file.read_bytes()[self._log_began :]:
            return BrokerStartError(f"{reason} Another process took one of its ports in that moment: start it again.")
        return BrokerStartError(f"{reason} The end of its log ({self.log_file}):\n{self.log_tail()}")


async def wait_until_ready(bootstrap: str, brokers: int, processes: Sequence[BrokerProcess], limit_s: float) -> None:
    """Ask the cluster until ``brokers`` brokers are there. Raises BrokerStartError, with the end of a log."""
    deadline = time.monotonic() + limit_s
    while True:
        for process in processes:
            if not process.running:
                raise process.start_error("The broker ended while it started.")
        if await _count(bootstrap) >= brokers:
            return
        if time.monotonic() > deadline:
            raise processes[0].start_error(f"The broker at {bootstrap} did not answer within {limit_s:g} s.")
        await asyncio.sleep(POLL_S)


async def _count(bootstrap: str) -> int:
    host, port = bootstrap.partition(",")[0].rsplit(":", 1)
    try:
        # A plain connection first: aiokafka logs every refused one as an error.
        _, writer = await asyncio.open_connection(host, int(port))
        writer.close()
        await writer.wait_closed()
        admin = AioAdmin(KafkaSettings(bootstrap=bootstrap))
        await admin.start()
        try:
            return await admin.broker_count()
        finally:
            await admin.stop()
    except (KafkaError, OSError):
        return 0


async def _ended(process: subprocess.Popen[bytes], limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while process.poll() is None and time.monotonic() < deadline:  # noqa: ASYNC110 - Popen is bound to no event loop
        await asyncio.sleep(POLL_S)
    return process.poll() is not None
