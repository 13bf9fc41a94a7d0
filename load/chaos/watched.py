"""A Prometheus beside a run: it scrapes every process of the run, and knows which of the shipped alerts fired.

Time is hastened: each window and each waiting time of the rules is a sixtieth as long, so what fires within an hour by
day does so within a minute here, on as many samples as a scrape each minute would give. What windows are compared with
(ages of requests, shares, days until a certificate ends) stays as it is.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from headrace.process.children import ProgramError, child
from headrace.process.ports import free_ports
from headrace_load.processes import until

RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "headrace.rules.yaml"
FASTER = 60
EVERY_S = 1.0
READY_S = 60.0
_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_WINDOW = re.compile(r"(?<=\[)(\d+)([smhd])(?=])|(?<=\bfor: )(\d+)([smhd])\b|(?<=\boffset )(\d+)([smhd])\b")
_SERVICE = re.compile(rb'"event":\s*"(worker|trainer|labeller|gateway)\.')
_LISTENS = re.compile(rb'"event":\s*"admin\.listening"[^\n]*?"port":\s*(\d+)')


def hastened(rules: str) -> str:
    """``rules`` (YAML) with every window, offset and waiting time divided by :data:`FASTER`."""

    def shorter(found: re.Match[str]) -> str:
        number, unit = (part for part in found.groups() if part is not None)
        return f"{int(number) * _UNITS_MS[unit] // FASTER}ms"

    return _WINDOW.sub(shorter, rules)


class Watch:
    """What a Prometheus on ``port`` of this machine knows."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def ask(self, path: str, **query: str) -> Any:
        """The data that Prometheus's API answers with. Raises OSError while it does not answer."""
        return await asyncio.to_thread(self._ask, f"{path}?{urllib.parse.urlencode(query)}")

    async def firing(self, last_s: float = 0.0) -> frozenset[str]:
        """The alerts that fire now, or fired at any time of the last seconds."""
        series = 'ALERTS{alertstate="firing"}'
        query = f"max_over_time({series}[{last_s:.0f}s])" if last_s >= 1 else series
        found = await self.ask("query", query=f"count by (alertname) ({query})")
        return frozenset(one["metric"]["alertname"] for one in found["result"])

    def _ask(self, what: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/{what}", timeout=30) as answer:
            return json.loads(answer.read())["data"]


@asynccontextmanager
async def watching(folder: Path) -> AsyncIterator[Watch]:
    """Keep a Prometheus that scrapes each process whose log is in ``folder``, and keeps its own files there.

    Raises ProgramError where there is no Prometheus, TimeoutError where it does not start.
    """
    program = shutil.which("prometheus")
    if program is None:
        raise ProgramError("Prometheus is not installed (Debian and Ubuntu: apt install prometheus).")
    own = folder / "prometheus"
    own.mkdir()
    (own / "rules.yaml").write_text(hastened(RULES.read_text(encoding="utf-8")), encoding="utf-8")
    times = {"scrape_interval": f"{EVERY_S:g}s", "evaluation_interval": f"{EVERY_S:g}s"}
    found = {"files": ["targets.json"], "refresh_interval": f"{EVERY_S:g}s"}
    scrapes = [{"job_name": "headrace", "file_sd_configs": [found]}]
    # JSON is YAML.
    (own / "prometheus.yaml").write_text(
        json.dumps({"global": times, "rule_files": ["rules.yaml"], "scrape_configs": scrapes}), encoding="utf-8"
    )
    _write_targets(folder, own)
    watch = Watch(free_ports(1)[0])
    command = (
        program,
        f"--config.file={own / 'prometheus.yaml'}",
        f"--storage.tsdb.path={own / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{watch.port}",
    )
    # The log's ending tells it from those of the processes that are watched.
    async with child(command, log=own / "prometheus.txt", name="prometheus") as running:

        async def answers() -> bool:
            try:
                return bool((await watch.ask("query", query='up{job="headrace-worker"} == 1'))["result"])
            except OSError:  # it starts; an HTTPError is one
                return False

        following = asyncio.create_task(_follow(folder, own))
        try:
            await until(answers, "a Prometheus that scrapes a worker", READY_S, running.check)
            yield watch
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


async def _follow(folder: Path, own: Path) -> None:
    while True:
        await asyncio.sleep(EVERY_S)
        _write_targets(folder, own)


def _write_targets(folder: Path, own: Path) -> None:
    """Tell Prometheus of every admin port that a process said it listens on; those of processes that ended stay."""
    targets = []
    for log in sorted(folder.glob("*.log")):
        said = log.read_bytes()
        if (service := _SERVICE.search(said)) is not None:
            labels = {"job": f"headrace-{service[1].decode()}", "process": log.stem}
            targets += [
                {"targets": [f"127.0.0.1:{port.decode()}"], "labels": labels}
                for port in dict.fromkeys(_LISTENS.findall(said))
            ]
    file, written = own / "targets.json", json.dumps(targets)
    if not file.exists() or file.read_text(encoding="utf-8") != written:
        # Prometheus never reads half of it.
        fresh = own / "targets.new"
        fresh.write_text(written, encoding="utf-8")
        fresh.replace(file)
