"""The dashboard and the rules on a real Prometheus that scrapes a real worker: no panel is empty, no rule fails.

What takes hours of labels, a teacher or callers is told by the same metrics, driven in tests/support/dashboards.py.
"""

from __future__ import annotations

import asyncio
import urllib.error
from contextlib import AsyncExitStack
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from headrace.client import prepare
from headrace.kafka.interface import Outgoing
from tests.support.dashboards import PROMETHEUS, asked, called, dashboard, driven, prometheus, served
from tests.support.own_topics import LIMIT_S, OwnTopics
from tests.support.random_versions import random_version
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(
    PROMETHEUS is None, reason="Prometheus is not installed (Debian and Ubuntu: apt install prometheus)"
)


async def test_no_panel_is_empty_and_no_rule_fails(embedded_bootstrap: str, tmp_path: Path) -> None:
    random_version(3, tmp_path / "model.safetensors")
    place = OwnTopics(embedded_bootstrap, tmp_path / "model.safetensors", tmp_path, embedded=True)
    place.apply()
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(place.client())
        await stack.enter_async_context(place.worker())
        worker = int((await place.logged(r"admin\.listening.*\bport=(\d+)"))[1])
        others = stack.enter_context(served({**driven(), "gateway": called()}))
        ports = {"worker": [worker], **{job: [port] for job, port in others.items()}}
        running, own = await stack.enter_async_context(prometheus(tmp_path, ports))

        async def shown(query: str) -> bool:
            """Whether a query has a series by now; requests go on, so that rates have something to count."""
            assert running.code is None, (tmp_path / "prometheus.log").read_text()[-2000:]
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
