"""`headrace up`: one command, one address with answers and a console, and nothing left of it."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
import urllib.error
import urllib.request
from pathlib import Path

from headrace.process.children import child
from tests.support.own_topics import LIMIT_S
from tests.support.random_versions import random_version
from tests.support.started_processes import StartedProcesses
from tests.support.waiting import until


def asked(address: str, path: str, token: str | None = None, body: bytes | None = None) -> tuple[int, bytes]:
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    request = urllib.request.Request(f"{address}{path}", body, headers)  # noqa: S310 - of this machine
    try:
        with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:  # noqa: S310 - the same
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def left(folder: Path) -> list[Path]:
    return list(folder.glob("headrace-up-*"))


async def test_one_command_answers_over_http_and_leaves_nothing_running(tmp_path: Path) -> None:
    random_version(3, tmp_path / "model.safetensors")
    started = StartedProcesses()
    command = (sys.executable, "-m", "headrace", "up", "--model", "model.safetensors", "--port", "0")
    log = tmp_path / "up.log"
    environ = started.environ(TMPDIR=str(tmp_path))
    async with child(command, log=log, environ=environ, folder=tmp_path) as running:

        def printed() -> str:
            running.check()
            text = log.read_text()
            return text if "Ctrl-C" in text else ""

        told = await until(printed, 3 * LIMIT_S)
        found = re.search(r"(http://127\.0\.0\.1:\d+)/console/#token=(\S+)", told)
        assert found is not None, told
        address, token = found.groups()
        status, body = await asyncio.to_thread(asked, address, "/v1/classify", token, b'"the good film"')
        assert (status, json.loads(body)["status"]) == (200, "ok"), body
        assert (await asyncio.to_thread(asked, address, "/v1/classify", None, b'"the good film"'))[0] == 401
        status, page = await asyncio.to_thread(asked, address, "/console/")
        assert (status, b"<script" in page) == (200, True)
        running.process.send_signal(signal.SIGINT)
        await until(lambda: running.code is not None, 2 * LIMIT_S)
        assert running.code == 0, log.read_text()
    assert await until(lambda: not started.processes(), LIMIT_S)
    assert left(tmp_path) == []


async def test_a_model_that_is_not_there_is_said_before_anything_starts(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "headrace", "up", "--model", "nothing.safetensors")
    async with child(command, log=tmp_path / "log", folder=tmp_path) as running:
        await until(lambda: running.code is not None, LIMIT_S)
    assert running.code == 1
    assert "there is no file nothing.safetensors" in (tmp_path / "log").read_text()
