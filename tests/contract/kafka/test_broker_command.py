"""`headrace broker` as a user runs it: a real process, real signals, nothing left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.kafka.aio import AioKafkaCluster
from headrace.kafka.settings import KafkaSettings
from headrace_load.processes import slowness
from tests.support.waiting import within

COMMAND = (sys.executable, "-m", "headrace", "broker")
LIMIT_S = 90.0


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """Where the command puts its temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    return folder


@pytest.fixture
def start(temporary: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `headrace broker`; whatever a test leaves is killed after it."""
    started = []

    def start(*options: str) -> subprocess.Popen[str]:
        environment = os.environ | {"TMPDIR": str(temporary)}
        process = subprocess.Popen(
            [*COMMAND, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=LIMIT_S * slowness())


def only_child(process: subprocess.Popen[str]) -> int:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        pytest.skip("the kernel does not list a process's children")
    [child] = children.read_text().split()
    return int(child)


async def brokers_at(bootstrap: str) -> int:
    admin = AioKafkaCluster(KafkaSettings(bootstrap=bootstrap)).admin()
    await admin.start()
    try:
        return await admin.broker_count()
    finally:
        await admin.stop()


async def gone(bootstrap: str) -> None:
    """Wait until nobody listens at ``bootstrap``."""
    host, port = bootstrap.rsplit(":", 1)
    async with within(LIMIT_S, f"the end of the broker at {bootstrap}"):
        while True:
            try:
                _, writer = await asyncio.open_connection(host, int(port))
            except ConnectionRefusedError:
                return
            except ConnectionError:
                continue  # it was just about to end
            writer.close()


@pytest.mark.parametrize(
    ("options", "number"),
    [
        pytest.param((), signal.SIGINT, id="embedded-SIGINT"),
        pytest.param((), signal.SIGTERM, id="embedded-SIGTERM"),
        pytest.param(("--kind", "apache"), signal.SIGINT, id="apache-SIGINT", marks=pytest.mark.apache),
    ],
)
async def test_the_address_is_printed_and_a_signal_ends_everything(start, temporary, options, number):
    running = start(*options)
    bootstrap = (await asyncio.to_thread(running.stdout.readline)).strip()
    assert await brokers_at(bootstrap) == 1
    running.send_signal(number)
    assert await asyncio.to_thread(running.wait, LIMIT_S) == 0
    await gone(bootstrap)
    assert [found for found in temporary.iterdir() if found.name.startswith("headrace")] == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
async def test_a_broker_does_not_outlive_the_command_that_is_killed(start):
    running = start()
    bootstrap = (await asyncio.to_thread(running.stdout.readline)).strip()
    assert await brokers_at(bootstrap) == 1
    running.kill()
    await gone(bootstrap)


async def test_a_broker_that_dies_ends_the_command_with_its_last_words(start):
    running = start()
    await asyncio.to_thread(running.stdout.readline)
    os.kill(only_child(running), signal.SIGKILL)
    _, said = await asyncio.to_thread(running.communicate, None, LIMIT_S)
    assert running.returncode == 1
    assert "ended by itself" in said


async def test_what_the_embedded_broker_cannot_do_is_refused_before_it_starts(start):
    running = start("--nodes", "3")
    _, said = await asyncio.to_thread(running.communicate, None, LIMIT_S)
    assert running.returncode == 2
    assert "use --kind apache" in " ".join(said.replace("│", " ").split())  # the usage error comes in a box
