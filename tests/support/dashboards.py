"""The dashboard's code, a Prometheus with the shipped rules, and metrics of what takes hours of labels or a teacher."""

from __future__ import annotations

import importlib.util
import json
import shutil
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server

from headrace.core.drift import Drift
from headrace.gateway.metrics import GatewayMetrics
from headrace.labeller.metrics import LabellerMetrics
from headrace.process.children import Child, child
from headrace.process.ports import free_ports
from headrace.trainer.metrics import TrainerMetrics
from headrace.worker.metrics import DriftGauge
from headrace_schemas.records import Training, TrainingState

DEPLOY = Path(__file__).parents[2] / "deploy"
PROMETHEUS = shutil.which("prometheus")

_SPEC = importlib.util.spec_from_file_location("dashboard", DEPLOY / "grafana" / "dashboard.py")
assert _SPEC is not None
assert _SPEC.loader is not None
dashboard = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(dashboard)


def asked(port: int, path: str, **query: str) -> Any:
    """The data that Prometheus's API answers with. Raises OSError."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(query)}") as answer:
        return json.loads(answer.read())["data"]


def driven() -> dict[str, CollectorRegistry]:
    """By job a trainer's and a labeller's metrics after some work, and the drift of a worker whose version has a
    profile.
    """
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
    return {"trainer": trainer, "labeller": labeller}


def called() -> CollectorRegistry:
    """A gateway's metrics after some calls."""
    registry = CollectorRegistry()
    metrics = GatewayMetrics(registry)
    metrics.call("POST /v1/classify", 200)
    metrics.texts("ok", 3)
    metrics.waited(0.02)
    metrics.refused("too-many")
    return registry


@contextmanager
def served(registries: Mapping[str, CollectorRegistry]) -> Iterator[dict[str, int]]:
    """Serve metrics while the block runs; yields the port of each job."""
    with ExitStack() as stack:
        ports = {}
        for job, registry in registries.items():
            server, thread = start_http_server(0, "127.0.0.1", registry)
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            ports[job] = server.server_port
        yield ports


@asynccontextmanager
async def prometheus(folder: Path, ports: Mapping[str, list[int]]) -> AsyncIterator[tuple[Child, int]]:
    """Keep a Prometheus that scrapes the ports of each job once a second; yields it and its own port."""
    scrapes = "".join(
        f"  - job_name: headrace-{job}\n    static_configs:\n      - targets: {[f'127.0.0.1:{port}' for port in of]}\n"
        for job, of in ports.items()
    )
    file = folder / "prometheus.yaml"
    file.write_text(
        "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
        f"rule_files: ['{DEPLOY / 'prometheus' / 'headrace.rules.yaml'}']\nscrape_configs:\n{scrapes}"
    )
    own = free_ports(1)[0]
    storage = (f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address=127.0.0.1:{own}")
    command = (str(PROMETHEUS), f"--config.file={file}", "--enable-feature=exemplar-storage", *storage)
    async with child(command, log=folder / "prometheus.log") as running:
        yield running, own
