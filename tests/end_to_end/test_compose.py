"""deploy/compose.yaml without Docker: headrace's commands run on a real broker, each by its own line and variables."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import urllib.request
import uuid
from asyncio.subprocess import Process
from contextlib import AsyncExitStack
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import yaml

from headrace.process.children import child
from headrace.process.ports import free_ports
from tests.support.own_topics import EMBEDDED, LIMIT_S
from tests.support.waiting import until

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
OWN = {name: service for name, service in SERVICES.items() if "build" in service}
KAFKA_INSIDE = "kafka:19092"


def command_of(name: str, bootstrap: str, prefix: str, store: Path) -> tuple[list[str], dict[str, str]]:
    """The command line and variables of a service, with the addresses and paths of this machine."""
    service = OWN[name]
    environ = {key: value for key, value in os.environ.items() if not key.startswith("HEADRACE_")}
    here = {KAFKA_INSIDE: bootstrap, "/store": str(store)}
    environ |= {key: here[value] for key, value in service["environment"].items()}
    environ |= {"HEADRACE_ADMIN__PORT": str(free_ports(1)[0]), "HEADRACE_GATEWAY__PORT": str(free_ports(1)[0])}
    command = ["127.0.0.1" if word == "0.0.0.0" else word for word in service["command"]]  # noqa: S104
    prefixed = ("--set", f"topics.prefix={prefix}")
    return [sys.executable, "-m", "headrace", *EMBEDDED, *prefixed, *command], environ


@pytest.mark.slow
async def test_the_commands_of_every_service_run(embedded_bootstrap: str, tmp_path: Path) -> None:
    prefix, store = f"compose-{uuid.uuid4().hex[:8]}.", tmp_path / "store"
    store.mkdir()
    command, environ = command_of("topics", embedded_bootstrap, prefix, store)
    async with child(command, log=tmp_path / "topics.log", environ=environ) as topics:
        # It may end with 1: one broker is no three.
        await topics.process.wait()
    said = (tmp_path / "topics.log").read_text(encoding="utf-8")
    assert f"created {prefix}classify.results" in said, said

    async with AsyncExitStack() as running:
        started = {}
        for name in OWN.keys() - {"topics"}:
            command, environ = command_of(name, embedded_bootstrap, prefix, store)
            one = await running.enter_async_context(child(command, log=tmp_path / f"{name}.log", environ=environ))
            started[name] = (one.process, f"http://127.0.0.1:{environ['HEADRACE_ADMIN__PORT']}/healthz")
        for name, (process, url) in started.items():

            async def healthy(name: str = name, process: Process = process, url: str = url) -> bool:
                assert process.returncode is None, (tmp_path / f"{name}.log").read_text(encoding="utf-8")
                return await asyncio.to_thread(_is_well, url)

            await until(healthy, LIMIT_S)
        for process, _ in started.values():
            process.send_signal(signal.SIGTERM)
        for name, (process, _) in started.items():
            assert await process.wait() == 0, (tmp_path / f"{name}.log").read_text(encoding="utf-8")


def _is_well(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - of this machine
            return bool(answer.status == HTTPStatus.OK)
    except OSError:
        return False


def test_the_services_are_those_that_the_issue_asks_for() -> None:
    assert set(SERVICES) == {
        *("kafka", "topics", "worker-1", "worker-2", "trainer", "gateway"),
        *("prometheus", "grafana"),
    }


def test_every_port_is_open_to_this_machine_alone() -> None:
    assert all(port.startswith("127.0.0.1:") for service in SERVICES.values() for port in service.get("ports", ()))


@pytest.mark.parametrize("name", sorted(OWN))
def test_a_service_may_change_nothing_but_its_own(name: str) -> None:
    service = OWN[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert all(mount.endswith(":ro") for mount in service["volumes"]) or name == "trainer"
    assert service["build"]["target"] == ("cuda" if name == "trainer" else "cpu")


def test_prometheus_scrapes_every_service_that_has_an_admin_port() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "compose.yaml").read_text(encoding="utf-8"))
    scraped = {
        target.partition(":")[0]
        for job in config["scrape_configs"]
        for static in job["static_configs"]
        for target in static["targets"]
    }
    assert scraped == OWN.keys() - {"topics"}
    known = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text(encoding="utf-8"))
    jobs = {job["job_name"] for job in config["scrape_configs"]} - {"headrace-gateway"}
    assert jobs <= {job["job_name"] for job in known["scrape_configs"]}


def test_what_is_mounted_is_there() -> None:
    for service in SERVICES.values():
        for mount in service.get("volumes", ()):
            source = mount.partition(":")[0]
            if source.startswith("."):
                assert (DEPLOY / source).exists(), source
            else:
                assert source in COMPOSE["volumes"]


def test_grafana_is_given_the_dashboard_and_its_source() -> None:
    folder = DEPLOY / "grafana" / "provisioning"
    (provider,) = yaml.safe_load((folder / "dashboards" / "headrace.yaml").read_text(encoding="utf-8"))["providers"]
    assert any(
        mount.endswith(f"{provider['options']['path']}/headrace.json:ro") for mount in SERVICES["grafana"]["volumes"]
    )
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yaml").read_text(encoding="utf-8"))["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in SERVICES
