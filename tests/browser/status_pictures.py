"""Pictures of `headrace status` under load and under a fault: ``python -m tests.browser.status_pictures OUT``.

Two workers answer a steady stream on the embedded broker. Then rubbish comes, and both workers are killed. The command
runs on a terminal of 80 columns of its own (a pty); Chromium draws what it wrote.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import io
import os
import pty
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from playwright.async_api import async_playwright
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from headrace.kafka.aio import AioKafkaCluster
from headrace.kafka.brokers import embedded_broker
from headrace.kafka.interface import Outgoing, connected
from tests.support.own_topics import OwnTopics
from tests.support.random_versions import random_version, text
from tests.support.streams import answered, publish_steadily

COLUMNS, LINES = 80, 30
RATE = 150.0
LOAD_S, FAULT_S = 70.0, 25.0


def on_a_terminal(command: list[str]) -> str:
    """What ``command`` writes to a terminal of COLUMNS by LINES."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    environ = {**os.environ, "TERM": "xterm-256color"}
    environ.pop("NO_COLOR", None)
    child = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL, env=environ)
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):  # the end of a terminal
        while chunk := os.read(ours, 65536):
            said += chunk
    child.wait()
    os.close(ours)
    return said.decode().replace("\r\n", "\n")


async def draw(said: str, title: str, out: Path) -> None:
    shown = Console(file=io.StringIO(), record=True, width=COLUMNS, force_terminal=True)
    shown.print(Text.from_ansi(said))
    svg = shown.export_svg(title=title, theme=MONOKAI)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = await browser.new_page(viewport={"width": 1000, "height": 700})
        await page.set_content(f"<body style='margin:0'>{svg}</body>")
        await page.locator("svg").screenshot(path=out)
        await browser.close()


async def main(out: Path, folder: Path) -> None:
    model = folder / "random.safetensors"
    random_version(3, model)
    async with embedded_broker() as bootstrap:
        place = OwnTopics(bootstrap, None, folder, embedded=True)
        # The names as they are by default.
        place.at = tuple(one.replace(place.prefix, "") for one in place.at)
        place.prefix, place.command = "", (*place.at, "worker")
        place.apply()
        status = [sys.executable, "-m", "headrace", *place.at, "status"]
        await asyncio.to_thread(
            subprocess.run, [sys.executable, "-m", "headrace", *place.at, "models", "publish", str(model)], check=True
        )
        stop = asyncio.Event()
        async with place.client() as client, contextlib.AsyncExitStack() as stack:
            workers = [await stack.enter_async_context(place.worker()) for _ in range(2)]
            sending = asyncio.create_task(publish_steadily(client, [text(n) for n in range(500)], rate=RATE, stop=stop))
            await answered(client, 10)
            await asyncio.sleep(LOAD_S)
            said = await asyncio.to_thread(on_a_terminal, status)
            sys.stdout.write(said)
            await draw(said, "headrace status", out / "status-load.png")
            async with connected(AioKafkaCluster(place.kafka).producer()) as producer:
                for _ in range(5):
                    await producer.send("classify.requests", Outgoing(b"{rubbish"), partition=0)
            await asyncio.sleep(3)
            for worker in workers:
                worker.process.kill()
            await asyncio.sleep(FAULT_S)
            said = await asyncio.to_thread(on_a_terminal, status)
            sys.stdout.write(said)
            await draw(said, "headrace status", out / "status-fault.png")
            stop.set()
            await sending


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(main(Path(sys.argv[1]), Path(scratch)))
