"""The log's level changes while a process runs: by signals of its own user, and by nothing that comes over a port."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from headrace.process.admin import admin_server
from tests.support.waiting import until

PROGRAM = """
import asyncio, signal, sys
{before}
from headrace.process import lifecycle, logs
logs.configure(sys.stderr, level="warning")
async def main(stop):
    print("ready", flush=True)
    while not stop.is_set():
        logs.event("loop.turned", level="debug")
        logs.event("loop.failed", level="warning")
        await asyncio.sleep(0.02)
lifecycle.run(main, drain_s=5)
"""


def started(folder: Path, before: str = "") -> tuple[subprocess.Popen[str], Path]:
    return launched(folder, PROGRAM.format(before=before))


def launched(folder: Path, program: str) -> tuple[subprocess.Popen[str], Path]:
    log = folder / "log"
    with log.open("w") as stderr:
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=stderr, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process, log


async def logged(log: Path, pattern: str) -> None:
    await until(lambda: re.search(pattern, log.read_text()))


async def test_signals_raise_the_level_and_put_it_back(tmp_path: Path) -> None:
    process, log = started(tmp_path)
    try:
        assert "loop.turned" not in log.read_text()
        for _ in range(200):  # a flood of them changes nothing more
            process.send_signal(signal.SIGUSR1)
        await logged(log, r"log\.level_changed before=warning now=debug why=SIGUSR1")
        await logged(log, r"debug loop\.turned")
        process.send_signal(signal.SIGUSR2)
        await logged(log, r"log\.level_changed before=debug now=warning why=SIGUSR2")
        assert log.read_text().count("now=debug") == 1
        assert "loop.turned" not in log.read_text().partition("why=SIGUSR2")[2]
    finally:
        process.terminate()
        assert await asyncio.to_thread(process.wait, 60) == 0


async def test_a_handler_that_is_there_already_stays(tmp_path: Path) -> None:
    process, log = started(tmp_path, "signal.signal(signal.SIGUSR1, lambda *_: print('own', file=sys.stderr))")
    try:
        process.send_signal(signal.SIGUSR1)
        await logged(log, "own")
        assert "level_changed" not in log.read_text()
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 60)


CHILD = """
import asyncio, signal, sys, time
# Before it heeds signals, one of them would end it.
{before}
from headrace.process import lifecycle, logs
logs.configure(sys.stderr, level="warning")
async def main(stop):
    logs.event("child.runs", level="warning", slot={slot})
    while not stop.is_set():
        logs.event("child.turned", level="debug", slot={slot})
        await asyncio.sleep(0.02)
    logs.event("child.drained", level="warning", slot={slot})
lifecycle.run(main, drain_s=5)
"""
PARENT = """
import asyncio, sys
from headrace.core.clock import SystemClock
from headrace.process import lifecycle, logs
logs.configure(sys.stderr, level="warning")
children = {children!r}
def parent(stop):
    print("ready", flush=True)
    command = lambda slot: [sys.executable, "-c", children[slot]]
    return lifecycle.supervise(command, len(children), stop=stop, clock=SystemClock(), grace_s=30)
sys.exit(lifecycle.run(parent, drain_s=40))
"""


async def test_the_parent_of_several_processes_passes_levels_and_the_end_on_to_them(tmp_path: Path) -> None:
    opened = tmp_path / "opened"
    # The second one heeds signals only once the file is there.
    wait = f"while not __import__('pathlib').Path({str(opened)!r}).exists(): time.sleep(0.01)"
    children = [CHILD.format(before=before, slot=slot) for slot, before in enumerate(("", wait))]
    process, log = launched(tmp_path, PARENT.format(children=children))
    try:
        await logged(log, r"child\.runs slot=0")
        process.send_signal(signal.SIGUSR1)
        await logged(log, r"debug child\.turned slot=0")
        opened.touch()
        await logged(log, r"debug child\.turned slot=1")
        assert "member.ended" not in log.read_text()
        process.send_signal(signal.SIGUSR2)
        await until(lambda: log.read_text().count("now=warning why=SIGUSR2") == 3)
    finally:
        process.terminate()
        assert await asyncio.to_thread(process.wait, 60) == 0
    assert sorted(re.findall(r"child\.drained slot=(\d)", log.read_text())) == ["0", "1"]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", ["/loglevel", "/log?level=debug", "/metrics", "/"])
async def test_nobody_changes_it_over_the_admin_port(method: str, path: str) -> None:
    served = admin_server("127.0.0.1", 0, health=lambda: None, ready=lambda: None, registry=CollectorRegistry())
    async with served as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\ndebug".encode())
        assert b" 405 " in await reader.readline()
        writer.close()
