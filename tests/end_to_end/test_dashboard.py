"""The dashboard and the rules on a real Prometheus that scrapes a real worker: no panel is empty, no rule fails.

What takes hours of labels, or a teacher (drift, trainings, money), is told by the same metrics, driven here.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import shutil
import urllib.error
import urllib.parse
import urllib.request
from contextlib import AsyncExitStack
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, start_http_server

from headrace.client import prepare
from headrace.core.drift import Drift
from headrace.kafka.interface import Outgoing
from headrace.labeller.metrics import LabellerMetrics
from headrace.process.children import child
from headrace.process.ports import free_ports
from headrace.trainer.metrics import TrainerMetrics
from headrace.worker.metrics import DriftGauge
from headrace_schemas.records import Training, TrainingState
from tests.support.own_topics import LIMIT_S, OwnTopics
from tests.support.random_versions import random_version
from tests.support.waiting import until

DEPLOY = Path(__file__).parents[2] / "deploy"
PROMETHEUS = shutil.which("prometheus")
pytestmark = pytest.mark.skipif(
    PROMETHEUS is None, reason="Prometheus is not installed (Debian and Ubuntu: apt install prometheus)"
)

_SPEC = importlib.util.spec_from_file_location("dashboard", DEPLOY / "grafana" / "dashboard.py")
assert _SPEC is not None
assert _SPEC.loader is not None
dashboard = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(dashboard)


def asked(port: int, path: str, **query: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(query)}") as answer:
        return json.loads(answer.read())["data"]


def driven() -> tuple[CollectorRegistry, CollectorRegistry]:
    """A trainer's and a labeller's metrics after some work, and the drift of a worker whose version has a profile."""
    trainer, labeller = CollectorRegistry(), CollectorRegistry()
    DriftGauge(trainer).measure = lambda: Drift(0.1, 0.2, 1000)
    metrics = TrainerMetrics(trainer)
    metrics.labels(900, 3, 0)
    metrics.machine_labels(5000, 1)
    metrics.missing(97)
    done = TrainingState.DONE
    metrics.ended(Training(name="m", id="t", state=done, reason="", begun_at_ms=0, offsets=(), ended_at_ms=60_000))
    metrics.judged(promoted=True)
    metrics.disagreement(0.005, 0.03, 0.02)
    metrics.drift(Drift(0.1, 0.2, 1000))
    teaching = LabellerMetrics(labeller)
    teaching.labelled(100, 0.25)
    teaching.reviewed(3)
    teaching.waiting(7)
    teaching.agreement(0.9, 0.8)
    return trainer, labeller


def configuration(folder: Path, **ports: int) -> Path:
    scrapes = "".join(
        f"  - job_name: headrace-{job}\n    static_configs:\n      - targets: ['127.0.0.1:{port}']\n"
        for job, port in ports.items()
    )
    file = folder / "prometheus.yaml"
    file.write_text(
        "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
        f"rule_files: ['{DEPLOY / 'prometheus' / 'headrace.rules.yaml'}']\nscrape_configs:\n{scrapes}"
    )
    return file


async def test_no_panel_is_empty_and_no_rule_fails(embedded_bootstrap: str, tmp_path: Path) -> None:
    random_version(3, tmp_path / "model.safetensors")
    place = OwnTopics(embedded_bootstrap, tmp_path / "model.safetensors", tmp_path, embedded=True)
    place.apply()
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(place.client())
        await stack.enter_async_context(place.worker())
        worker = int((await place.logged(r"admin\.listening.*\bport=(\d+)"))[1])
        ports = {"worker": worker}
        for job, registry in zip(("trainer", "labeller"), driven(), strict=True):
            server, thread = start_http_server(0, "127.0.0.1", registry)
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            ports[job] = server.server_port
        own = free_ports(1)[0]
        storage = (f"--storage.tsdb.path={tmp_path / 'tsdb'}", f"--web.listen-address=127.0.0.1:{own}")
        command = (str(PROMETHEUS), f"--config.file={configuration(tmp_path, **ports)}", *storage)
        prometheus = await stack.enter_async_context(child(command, log=tmp_path / "prometheus.log"))

        async def shown(query: str) -> bool:
            """Whether a query has a series by now; requests go on, so that rates have something to count."""
            assert prometheus.code is None, (tmp_path / "prometheus.log").read_text()[-2000:]
            await client.publish_many(["the good film", prepare("too late", timeout=0.001), Outgoing(b"{")])
            try:
                found = await asyncio.to_thread(asked, own, "query", query=query)
            except urllib.error.HTTPError as error:
                if error.code == HTTPStatus.SERVICE_UNAVAILABLE:  # it is starting
                    return False
                pytest.fail(f"{query}: {error.read().decode()}")
            except (urllib.error.URLError, ConnectionError):  # it does not listen yet
                return False
            return bool(found["result"])

        for title, query in dashboard.queries():

            async def look(query: str = query) -> bool:
                return await shown(query)

            try:
                await until(look, LIMIT_S)
            except TimeoutError:
                pytest.fail(f"the panel {title!r} is empty: {query}")

        async def evaluated() -> list[Any]:
            """The groups of rules, once each rule was evaluated."""
            groups = (await asyncio.to_thread(asked, own, "rules"))["groups"]
            return [] if any(rule["health"] == "unknown" for one in groups for rule in one["rules"]) else groups

        groups = await until(evaluated, LIMIT_S)
        assert len(groups) == 6
        assert [rule["name"] for one in groups for rule in one["rules"] if rule["health"] != "ok"] == []


def test_the_dashboard_is_what_its_code_writes() -> None:
    assert dashboard.main(["--check"]) == 0, "write it anew: python deploy/grafana/dashboard.py"
