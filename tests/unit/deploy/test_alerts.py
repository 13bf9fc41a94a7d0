"""The alerts: rules that Prometheus takes, each tested, each with a page, and all about metrics that there are."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from headrace.gateway.metrics import GatewayMetrics
from headrace.labeller.metrics import LabellerMetrics
from headrace.sight.surroundings import SurroundingsMetrics
from headrace.trainer.metrics import TrainerMetrics
from headrace.worker.metrics import WorkerMetrics

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "deploy" / "prometheus"
RULES: list[dict[str, Any]] = [
    rule
    for group in msgspec.yaml.decode((FOLDER / "headrace.rules.yaml").read_bytes())["groups"]
    for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if "alert" in rule]
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
PROMTOOL = shutil.which("promtool")


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian and Ubuntu: apt install prometheus)")
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "prometheus.yaml"),
        ("check", "config", "compose.yaml"),
        ("test", "rules", "headrace.rules.test.yaml"),
    ],
    ids=" ".join,
)
def test_promtool_finds_nothing(arguments: tuple[str, ...]) -> None:
    done = subprocess.run([str(PROMTOOL), *arguments], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_is_tested_both_ways_and_its_page_says_how_urgent_it_is(alert: dict[str, Any]) -> None:
    name = alert["alert"]
    tests = msgspec.yaml.decode((FOLDER / "headrace.rules.test.yaml").read_bytes())["tests"]
    expected = [
        bool(one["exp_alerts"]) for test in tests for one in test.get("alert_rule_test", ()) if one["alertname"] == name
    ]
    assert set(expected) == {True, False}, "needs a case in which it fires, and one in which it doesn't"
    assert alert["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"
    section = RUNBOOK.partition(f"\n## {name}\n")[2].lstrip()
    assert section.startswith(f"**{alert['labels']['severity']}.**")


def test_the_runbook_has_no_page_of_an_alert_that_is_gone() -> None:
    assert re.findall(r"^## (Headrace.*)$", RUNBOOK, re.MULTILINE) == [alert["alert"] for alert in ALERTS]


def test_the_table_of_faults_has_every_alert_once() -> None:
    table = RUNBOOK.partition("\n## Which faults fire the alerts\n")[2]
    assert sorted(re.findall(r"Headrace\w+", table)) == sorted(alert["alert"] for alert in ALERTS)


def test_every_metric_that_a_rule_names_is_one_that_a_process_tells() -> None:
    told: set[str] = set()
    for metrics in (WorkerMetrics, TrainerMetrics, LabellerMetrics, GatewayMetrics, SurroundingsMetrics):
        registry = CollectorRegistry()
        metrics(registry)
        told |= {name for family in registry.collect() for name in _samples(family)}
    named = {name for rule in RULES for name in re.findall(r"\bheadrace_[a-z_]+", rule["expr"])}
    assert named
    assert named <= told, f"no process tells {sorted(named - told)}"


def _samples(family: Any) -> set[str]:
    if family.type == "counter":
        return {f"{family.name}_total"}
    return {
        family.name,
        *(f"{family.name}_{part}" for part in ("bucket", "sum", "count") if family.type == "histogram"),
    }
