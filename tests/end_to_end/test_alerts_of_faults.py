"""The alerts under faults of load/chaos: real processes on Apache Kafka, scraped by a real Prometheus with the shipped
rules, whose windows are a sixtieth as long. `make alerts` runs this, for some ten minutes.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from headrace.kafka.brokers import BrokerStartError, java_binary
from headrace_load.workload.texts import load_texts
from load.chaos.cluster import Cluster, cluster
from load.chaos.faults import ALL, SEEN
from load.chaos.run import run
from load.chaos.watched import RULES, hastened
from load.chaos.world import TEXTS
from load.made import made_artifact

FAULTS = {fault.name: fault for fault in (*ALL, *SEEN)}
LATE = ("HeadraceNoProgress", "HeadraceRequestsLate", "HeadraceRequestsLateSlowly")
FIRED = {
    "network-answers-swallowed": LATE,
    "network-swallowed": ("HeadraceBrokerAway", "HeadraceAnswersExpired"),
    "network-coordinator-alone": ("HeadraceMembershipUnsteady",),
    "broker-retention-while-away": ("HeadraceRequestsLost", "HeadraceWorkersAbsent"),
    "broker-partitions-added-wrongly": ("HeadracePartitionsUnanswerable",),
    "model-breaks": ("HeadraceBreakerOpen",),
    "store-closed-to-one": ("HeadraceVersionsDiffer", "HeadraceVersionNotLoaded"),
    "artifacts-of-other-texts": ("HeadraceDrift",),
    "trainer-coordinator-alone": ("HeadraceNoTrainerLeads",),
    "trainer-store-stays-away": ("HeadraceTrainingsFail",),
    "labels-rubbish": ("HeadraceLabelsRefused",),
    "teachers-bad": ("HeadraceTeacherDown", "HeadraceTeacherBudgetSpent", "HeadraceTeacherNotBelieved"),
    "gateway-old-keys": (
        *("HeadraceApiKeyOld", "HeadraceKeyOld"),
        *("HeadraceCertificateEndsSoon", "HeadraceCertificateEnds"),
    ),
    "worker-small-disk": ("HeadraceDiskFull",),
}
"""The alerts that each fault has to fire. One in fifty requests of every run is rubbish, so HeadraceDeadLetters fires
in all of them, before the fault too.
"""
ALWAYS = "HeadraceDeadLetters"
NOT_HERE = {
    "HeadraceCascadeBoundBroken": "it takes hundreds of labels by people; test_alert_faults.py has it",
}

ALERTS = set(re.findall(r"- alert: (\w+)", RULES.read_text(encoding="utf-8")))


def test_every_alert_has_a_fault_or_a_reason_why_not() -> None:
    assert {alert for alerts in FIRED.values() for alert in alerts} | {ALWAYS} | NOT_HERE.keys() == ALERTS
    assert FIRED.keys() <= FAULTS.keys()
    assert {fault.name for fault in SEEN} <= FIRED.keys()


def test_the_runbook_names_the_fault_of_each_alert() -> None:
    page = (Path(__file__).parents[2] / "docs" / "runbook.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| Headrace")]
    told = {alert: row[3] for row in rows for alert in re.findall(r"Headrace\w+", row[1])}
    assert told.keys() == ALERTS
    for name, alerts in FIRED.items():
        assert all(f"`{name}`" in told[alert] for alert in alerts), name


def test_windows_alone_are_hastened() -> None:
    shorter = hastened(
        "expr: rate(x[5m]) > 14 * 86400 unless x offset 1h\nfor: 30s\nannotations: {summary: for five minutes}\n"
    )
    assert shorter == (
        "expr: rate(x[5000ms]) > 14 * 86400 unless x offset 60000ms\n"
        "for: 500ms\nannotations: {summary: for five minutes}\n"
    )
    assert not re.search(r"\[\d+[smhd]\]|for: \d+[smhd]\b", hastened(RULES.read_text(encoding="utf-8")))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one_node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    try:
        java_binary()
    except BrokerStartError as error:
        pytest.skip(str(error))
    async with cluster(1, tmp_path_factory.mktemp("kafka")) as found:
        yield found


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("model") / "model.safetensors"
    made_artifact(load_texts(TEXTS, 0), file, words=TEXTS.words)
    return file


@pytest.mark.apache
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="Prometheus is not installed (apt install prometheus)")
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", FIRED)
async def test_a_fault_fires_its_alerts(name: str, one_node: Cluster, model: Path, tmp_path: Path) -> None:
    # How long partitions stand still is for `make chaos`.
    fault = msgspec.structs.replace(FAULTS[name], stall_s=None)
    outcome = await run(fault, 0, one_node, model=model, folder=tmp_path, watched=True)
    assert outcome.error is None, outcome
    assert {*FIRED[name], ALWAYS} <= set(outcome.alerts), outcome
    assert not set(FIRED[name]) & set(outcome.alerts_before), outcome
