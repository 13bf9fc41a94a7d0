"""Every call with curl that docs/gateway.md shows, made as it stands: its reply has all that the page shows of it."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gateways import GatewaySite, RunningGateway

PAGE = (Path(__file__).parents[3] / "docs" / "gateway.md").read_text(encoding="utf-8")
STREAM_S = 3
TIMED_OUT = 28
pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def calls() -> Iterator[tuple[str, str]]:
    """Each command line of curl, and what the page says that it prints."""
    blocks = [*re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)]
    blocks += [f"$ {line}" for line in re.findall(r"^    (curl .*)$", PAGE, re.MULTILINE)]
    for block in blocks:
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, said = part.replace("\\\n", " ").partition("\n")
            if command.startswith("curl "):
                yield command, said


async def printed(command: str, token: str, ports: dict[str, RunningGateway]) -> str:
    """What a command prints that speaks to ``ports`` of this machine."""
    for port, gateway in ports.items():
        command = command.replace(f"http://127.0.0.1:{port}", gateway.address)
    if " -N " in command:
        command += f" --max-time {STREAM_S}"
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-c",
        command.replace("curl ", "curl --silent --show-error ", 1),
        env={**os.environ, "TOKEN": token},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, complaint = await process.communicate()
    assert process.returncode == 0 or (process.returncode == TIMED_OUT and " -N " in command), complaint
    return out.decode()


async def test_every_call_of_the_page_gets_the_reply_that_it_shows(site: GatewaySite) -> None:
    found = list(calls())
    assert len(found) > 7
    await site.add_version("v1")
    token = await site.add_key()
    place = ""
    async with site.gateway(keys=True) as keyed, site.gateway() as first, site.gateway() as second:
        await keyed.known(token)
        for command, said in found:
            ports = {"8080": keyed if "$TOKEN" in command else first, "8081": second}
            reply = await printed(command.replace("0@0", place or "0@0"), token, ports)
            place = (re.search(r"location: /v1/answers/(\S+)", reply) or ["", place])[1]
            missing = [one for one in shown(said) if one not in reply]
            assert not missing, f"{command}\nhas no {missing} in\n{reply}"
            if " -N " in command:
                assert "event: answer" in reply


def shown(said: str) -> set[str]:
    """What a reply has to have: the status, the headers' names and the fields' names that the page shows."""
    status = re.findall(r"^HTTP/1\.1 \d+", said, re.MULTILINE)
    headers = re.findall(r"^([a-z-]+: )", said, re.MULTILINE)
    return {*status, *headers, *re.findall(r'"\w+":', said)}
