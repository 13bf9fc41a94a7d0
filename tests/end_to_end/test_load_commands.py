"""The harness's command line on a broker of its own, with the real worker: what it writes down is what happened."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from headrace.model.artifact import About, assemble, save
from headrace.model.quantizing import quantize
from headrace_load.processes import slowness
from headrace_load.result import Comparison, Result, read
from tests.support.networks import random_network

LIMIT_S = 60.0
WORKLOAD = """
seconds = 3
warm_up = 1
lateness_ms = 10000
[arrivals]
kind = "constant"
rate = 100
[texts]
kind = "made"
distinct = 100
[bad]
share = 0.1
"""


@pytest.fixture
def files(tmp_path) -> Path:
    """A workload, and a worker with a model and one without."""
    save(assemble(quantize(random_network(3)), About()), str(tmp_path / "model.safetensors"))
    (tmp_path / "w.toml").write_text(WORKLOAD)
    for name, backend in (("whole", "cpu"), ("without", "constant")):
        worker = f'name = "{name}"\n[worker]\nmodel = "model.safetensors"\nbackend = "{backend}"\n'
        (tmp_path / f"{name}.toml").write_text(worker)
    return tmp_path


def load(files: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "load", *arguments, "--out", str(files / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S * slowness(), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_run_is_measured_audited_and_reported(files):
    contender = ("--contender", str(files / "whole.toml"))
    shown = load(files, "run", str(files / "w.toml"), *contender, "--broker", "embedded")
    result = read(files / "out" / "result.json")
    assert isinstance(result, Result)
    assert (result.audit.kept, result.refused, result.audit.published) == (True, None, 400)
    assert result.audit.by_status["ok"] + result.audit.by_status["failed"] == 400
    assert 10 < result.audit.by_status["failed"] < 90
    assert result.to_append.count == result.to_reader.count == 300
    assert 0 < result.to_append.p50 <= result.to_append.p99
    assert {one.name for one in result.stages} >= {"producing", "kafka", "reading"}
    assert all(result.used[name].cpu_s > 0 for name in ("workers", "broker", "harness"))
    assert "Kept" in shown
    assert "<svg" in (files / "out" / "report.html").read_text()
    assert (files / "out" / "latency.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.apache
@pytest.mark.parametrize(
    ("names", "rounds"),
    [(("whole",), 1), pytest.param(("whole", "without"), 2, marks=pytest.mark.slow)],
    ids=["one", "two-in-turn"],
)
async def test_contenders_drain_in_turn_are_compared_and_leave_no_topics(names, rounds, files, apache_bootstrap):
    contenders = [part for name in names for part in ("--contender", str(files / f"{name}.toml"))]
    backlog = ("--requests", "2000", "--rounds", str(rounds), "--partitions", "2")
    await asyncio.to_thread(load, files, "drain", *contenders, *backlog, "--bootstrap", apache_bootstrap)
    comparison = read(files / "out" / "comparison.json")
    assert isinstance(comparison, Comparison)
    assert {name: len(results) for name, results in comparison.results.items()} == dict.fromkeys(names, rounds)
    assert all(one.audit.by_status == {"ok": 2000} for results in comparison.results.values() for one in results)
    assert list(comparison.differences) == list(names[1:])
    for differences in comparison.differences.values():
        rate = next(one for one in differences if one.figure == "rate")
        assert rate.low <= rate.ratio <= rate.high
    assert (files / "out" / "report.html").exists()
    # The warm-up is run too, and its result kept.
    assert len(list((files / "out").glob("0*/result.json"))) == len(names) * (rounds + 1)
    admin = AIOKafkaAdminClient(bootstrap_servers=apache_bootstrap)
    await admin.start()
    left = [topic for topic in await admin.list_topics() if topic.startswith("headrace-load-")]
    await admin.close()
    assert left == []
