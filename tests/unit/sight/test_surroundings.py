"""What is measured of certificates, keys and disks, and that the alerts of them fire on a real fault."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest
import trustme
from prometheus_client import CollectorRegistry

from headrace.config import Settings
from headrace.config.gateway import GatewaySettings
from headrace.config.settings import SigningSettings
from headrace.sight.surroundings import SurroundingsMetrics, measure, surroundings
from tests.support.waiting import until

RULES = Path(__file__).parents[3] / "deploy" / "prometheus" / "headrace.rules.yaml"
PROMTOOL = shutil.which("promtool")


def site(folder: Path, *, days: float) -> Settings:
    """Settings whose gateway has a certificate that ends in ``days``, and that sign by a key."""
    now = dt.datetime.now(dt.UTC)
    issued = trustme.CA().issue_cert(
        "gateway.test", not_before=now - dt.timedelta(days=800), not_after=now + dt.timedelta(days=days)
    )
    issued.cert_chain_pems[0].write_to_path(folder / "gateway.pem")
    (folder / "key.pem").write_text("a key")
    settings = Settings()
    return msgspec.structs.replace(
        settings,
        gateway=GatewaySettings(tls_certfile=str(folder / "gateway.pem"), tls_keyfile=str(folder / "key.pem")),
        signing=SigningSettings(key_file=str(folder / "key.pem")),
        trainer=msgspec.structs.replace(settings.trainer, store=str(folder / "not" / "there" / "yet")),
    )


def test_ends_ages_and_room_are_measured(tmp_path):
    measured, unseen = measure(site(tmp_path, days=10), {"HOME": str(tmp_path)})
    assert unseen == ()
    ends = dt.datetime.fromtimestamp(measured.ends["gateway.tls_certfile"], dt.UTC) - dt.datetime.now(dt.UTC)
    assert dt.timedelta(days=9) < ends <= dt.timedelta(days=10)
    assert measured.made == {"signing.key_file": (tmp_path / "key.pem").stat().st_mtime}
    assert measured.free.keys() == {"store", "temporary", "cache"}


def test_what_cannot_be_looked_at_is_said_and_left_out(tmp_path):
    settings = site(tmp_path, days=10)
    (tmp_path / "gateway.pem").write_text("no certificate")
    measured, unseen = measure(settings, {"HOME": str(tmp_path)})
    assert measured.ends == {}
    assert "gateway.tls_certfile" in unseen[0]


async def test_they_are_told_while_the_process_runs(tmp_path):
    registry = CollectorRegistry()
    with surroundings(site(tmp_path, days=10), {"HOME": str(tmp_path)}, registry):
        await until(lambda: registry.get_sample_value("headrace_disk_free_bytes", {"folder": "store"}))


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian and Ubuntu: apt install prometheus)")
def test_the_faults_of_a_real_process_fire_their_alerts(tmp_path, monkeypatch):
    settings = site(tmp_path, days=1)
    now = dt.datetime.now(dt.UTC).timestamp()
    os.utime(tmp_path / "key.pem", (now - 400 * 86400, now - 400 * 86400))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2**40, 2**40, 2**20))
    registry = CollectorRegistry()
    metrics = SurroundingsMetrics(registry)
    metrics.measured, _ = measure(settings, {"HOME": str(tmp_path)})
    series = []
    for family in metrics.collect():
        for sample in family.samples:
            # promtool's clock begins at 0.
            value = sample.value - now if "timestamp" in sample.name else sample.value
            labels = ",".join(f'{name}="{of}"' for name, of in {"job": "j", **sample.labels}.items())
            series.append({"series": f"{sample.name}{{{labels}}}", "values": f"{value:.0f}x30"})
    fired = [
        {"eval_time": "20m", "expr": f'count(ALERTS{{alertname="{alert}", alertstate="firing"}})', "exp_samples": [exp]}
        for alert, exp in (
            ("HeadraceCertificateEndsSoon", {"value": 1}),
            ("HeadraceCertificateEnds", {"value": 1}),
            ("HeadraceKeyOld", {"value": 1}),
            ("HeadraceDiskFull", {"value": 3}),
        )
    ]
    test = {"interval": "1m", "input_series": series, "promql_expr_test": fired}
    file = tmp_path / "faults.yaml"
    file.write_bytes(msgspec.json.encode({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [test]}))
    done = subprocess.run([str(PROMTOOL), "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
