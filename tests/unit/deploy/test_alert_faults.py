"""Faults of a real worker that fire their alerts: the worker runs on the twin, its metrics go to Prometheus's rules.

What the metrics were before the fault stands for a quiet hour, what they are under it for the hour behind; counters go
on as they did from the one to the other. docs/runbook.md has the table of all alerts, with those that no fault fires.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from headrace.kafka.interface import BrokerUnavailableError, TopicPartition
from headrace.model.errors import ArtifactError
from headrace.worker.metrics import WorkerMetrics
from headrace.worker.stages.infer import Model
from headrace_schemas.headers import TIMEOUT_MS
from tests.support.models import LABELS, SumModel, label_of
from tests.support.simulation import TOPICS
from tests.support.worker_cluster import WorkerCluster, story

RULES = Path(__file__).parents[3] / "deploy" / "prometheus" / "headrace.rules.yaml"
PROMTOOL = shutil.which("promtool")
pytestmark = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not installed (Debian and Ubuntu: apt install prometheus)"
)
QUIET_M, UNDER_M = 60, 60

Samples = dict[str, float]


class Watched:
    """A worker's metrics, taken before a fault and under it."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = WorkerMetrics(self.registry)
        self.before: Samples = {}
        self.after: Samples = {}

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    def quiet(self) -> None:
        """From here on the fault counts."""
        self.before = self._samples()

    def under(self) -> None:
        """What the metrics are now is what they are under the fault; the end of the worker changes them."""
        self.after = self._samples()

    def series(self) -> list[dict[str, str]]:
        """Both as promtool's input."""
        found = []
        for name, now in self.after.items():
            before = self.before.get(name)
            if "_total{" in name:
                begun = before or 0.0
                found.append({"series": name, "values": f"{begun}x{QUIET_M} {now}+{now - begun}x{UNDER_M}"})
            else:
                quiet = f"{before}x{QUIET_M}" if before is not None else f"_x{QUIET_M}"
                found.append({"series": name, "values": f"{quiet} {now}x{UNDER_M}"})
        return found

    def _samples(self) -> Samples:
        return {
            f"{sample.name}{{{','.join(f'{key}={chr(34)}{of}{chr(34)}' for key, of in labels.items())}}}": sample.value
            for family in self.registry.collect()
            for sample in family.samples
            if not sample.name.endswith(("_created", "_bucket"))
            for labels in ({"job": "headrace-worker", **sample.labels},)
        }


def fired(watched: Watched, folder: Path, *alerts: str) -> None:
    """Let Prometheus say that all of ``alerts`` fire under the fault, and none of them before."""
    checks = [
        {
            "eval_time": f"{at}m",
            "expr": f'count(ALERTS{{alertname="{alert}", alertstate="firing"}}) > bool 0',
            **expected,
        }
        for alert in alerts
        for at, expected in (
            (QUIET_M - 1, {"exp_samples": []}),
            (QUIET_M + UNDER_M - 5, {"exp_samples": [{"value": 1}]}),
        )
    ]
    test: dict[str, Any] = {"interval": "1m", "input_series": watched.series(), "promql_expr_test": checks}
    file = folder / "faults.yaml"
    file.write_bytes(msgspec.json.encode({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [test]}))
    done = subprocess.run([str(PROMTOOL), "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def played(play: Callable[[WorkerCluster, Watched], Any]) -> Watched:
    watched = Watched()

    @story
    async def run(world: WorkerCluster) -> None:
        await play(world, watched)

    run()
    return watched


def test_answers_that_are_refused_by_kafka(tmp_path: Path) -> None:
    async def play(world: WorkerCluster, watched: Watched) -> None:
        world.start(metrics=watched.metrics, watchdog=600.0)
        await world.publish("before")
        await world.answered(1)
        await world.until(lambda: watched.value("headrace_lag_records", partition="0") == 0)
        watched.quiet()

        async def refused(_: str, name: str) -> None:
            if name == "produce.before":
                raise BrokerUnavailableError("NOT_ENOUGH_REPLICAS")

        world.fault = refused
        # It waits in a batch, and no other one behind it.
        await world.publish("waits")
        await world.until(lambda: (watched.value("headrace_lag_seconds", partition="0") or 0) > 30, 300)
        watched.under()

    fired(played(play), tmp_path, "HeadraceNoProgress", "HeadraceRequestsLate", "HeadraceRequestsLateSlowly")


def test_a_broker_that_answers_nothing(tmp_path: Path) -> None:
    async def play(world: WorkerCluster, watched: Watched) -> None:
        world.start(metrics=watched.metrics, watchdog=600.0)
        await world.running()
        await world.until(lambda: watched.value("headrace_broker_connected") == 1)
        watched.quiet()

        async def away(_: str, __: str) -> None:
            raise BrokerUnavailableError("nobody answers")

        world.fault = away
        await world.until(lambda: watched.value("headrace_broker_connected") == 0)
        watched.under()

    fired(played(play), tmp_path, "HeadraceBrokerAway")


def test_requests_that_are_rubbish_or_come_too_late(tmp_path: Path) -> None:
    async def play(world: WorkerCluster, watched: Watched) -> None:
        world.start(metrics=watched.metrics)
        await world.publish("before")
        await world.answered(1)
        await world.publish_value(b"{")
        await world.publish("late", headers=((TIMEOUT_MS, b"1000"),), timestamp_ms=world.clock.now_ms() - 60_000)
        await world.answered(3)
        await world.until(lambda: watched.value("headrace_answers_total", status="expired") == 1)
        watched.under()

    fired(played(play), tmp_path, "HeadraceDeadLetters", "HeadraceAnswersExpired")


def test_retention_in_front_of_a_worker(tmp_path: Path) -> None:
    async def play(world: WorkerCluster, watched: Watched) -> None:
        world.start(metrics=watched.metrics)
        await world.publish("before")
        await world.answered(1)
        await world.stop("w0")
        watched.quiet()
        await world.publish(*"abcdef")
        world.cluster.log(TopicPartition(TOPICS.requests, 0)).truncate_before(4)
        world.start(metrics=watched.metrics)
        await world.until(lambda: (watched.value("headrace_requests_lost_total") or 0) > 0)
        watched.under()

    fired(played(play), tmp_path, "HeadraceRequestsLost")


def test_a_requests_topic_that_grew_alone(tmp_path: Path) -> None:
    async def play(world: WorkerCluster, watched: Watched) -> None:
        world.start(metrics=watched.metrics, watchdog=20.0)
        await world.publish("before")
        await world.answered(1)
        watched.quiet()
        await world.cluster.admin().add_partitions(TOPICS.requests, 3)
        await world.until(lambda: watched.value("headrace_partitions_unanswerable") == 2)
        watched.under()

    fired(played(play), tmp_path, "HeadracePartitionsUnanswerable")


def test_a_model_that_fails_on_its_canaries(tmp_path: Path) -> None:
    async def play(world: WorkerCluster, watched: Watched) -> None:
        broken = False
        backend = SumModel(poison=lambda _: broken)
        canaries = [(b"canary", label_of("canary"))]
        world.start(metrics=watched.metrics, backend=backend, canaries=canaries, breaker_threshold=2)
        await world.publish("before")
        await world.answered(1)
        watched.quiet()
        broken = True
        await world.publish("one", "two", "three")
        await world.until(lambda: watched.value("headrace_breaker_open") == 1)
        watched.under()

    fired(played(play), tmp_path, "HeadraceBreakerOpen")


def test_a_version_that_can_not_be_loaded(tmp_path: Path) -> None:
    async def load(record: Any) -> Model:
        if record.version == "v2":
            raise ArtifactError("v2 is gone")
        return Model(record.version, LABELS, SumModel())

    async def play(world: WorkerCluster, watched: Watched) -> None:
        await world.publish_version("v1")
        await world.point_alias("v1")
        world.start(metrics=watched.metrics, answering=load)
        await world.publish("before")
        await world.answered(1)
        watched.quiet()
        await world.publish_version("v2")
        await world.point_alias("v2", previous="v1")
        await world.until(lambda: (watched.value("headrace_model_load_failures_total") or 0) > 0)
        watched.under()

    fired(played(play), tmp_path, "HeadraceVersionNotLoaded")


def test_a_member_that_loses_its_coordinator(tmp_path: Path) -> None:
    async def play(world: WorkerCluster, watched: Watched) -> None:
        world.start(metrics=watched.metrics)
        await world.running()
        watched.quiet()
        world.cluster.node("w0").cut_coordinator()
        await world.until(lambda: (watched.value("headrace_leases_lost_total") or 0) > 0)
        watched.under()

    fired(played(play), tmp_path, "HeadraceMembershipUnsteady")
