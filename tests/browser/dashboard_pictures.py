"""The dashboard under load and under a fault as one picture: ``python -m tests.browser.dashboard_pictures OUT.png``.

Grafana can't be had here, so matplotlib draws what a real Prometheus answers to the query of each panel. Two workers
and a gateway are real, on the embedded broker; trainer and labeller are driven. After a while of steady load rubbish
comes and both workers are killed; half a minute later they are started again.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import matplotlib as mpl

from headrace.kafka.aio import AioKafkaCluster
from headrace.kafka.brokers import embedded_broker
from headrace.kafka.interface import Outgoing, connected
from headrace.process.children import child, headrace
from tests.support.dashboards import asked, dashboard, driven, prometheus, served
from tests.support.own_topics import LIMIT_S, OwnTopics
from tests.support.random_versions import random_version, text
from tests.support.streams import answered, publish_steadily
from tests.support.waiting import until

mpl.use("agg")
import matplotlib.pyplot as plt

RATE, STEP_S = 150.0, 2
LOAD_S, FAULT_S, AFTER_S = 90.0, 30.0, 60.0
COLUMNS = 3


def named(legend: str, labels: Mapping[str, str]) -> str:
    """A legend of Grafana, {{such}} labels filled in."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), legend)


def draw(port: int, begun_s: float, fault_s: float, out: Path) -> list[str]:
    """Draw every panel from ``begun_s`` to now, with a line where the fault began; returns the titles of empty ones."""
    times = {"start": f"{begun_s:.0f}", "end": f"{time.time():.0f}", "step": str(STEP_S)}
    panels = [(row, panel) for row, of in dashboard.ROWS.items() for panel in of]
    rows = -(-len(panels) // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(15, 2.6 * rows), constrained_layout=True, squeeze=False)
    empty = []
    for axis, (row, panel) in zip(axes.flat, panels, strict=False):
        drawn = 0
        for query, legend in panel.queries:
            for series in asked(port, "query_range", query=query, **times)["result"]:
                values = {round((at - begun_s) / STEP_S): float(value) for at, value in series["values"]}
                steps = range(min(values), max(values) + 1)
                # Where there was no value, there is no line.
                line = [values.get(step, math.nan) for step in steps]
                axis.plot([step * STEP_S for step in steps], line, label=named(legend, series["metric"]))
                drawn += 1
        if not drawn:
            empty.append(panel.title)
        axis.set_title(f"{row}: {panel.title} ({panel.unit})", fontsize=8)
        axis.axvline(fault_s - begun_s, linestyle=":", color="gray")
        axis.tick_params(labelsize=7)
        axis.set_ylim(bottom=0)
        if 0 < drawn <= 10:
            axis.legend(fontsize=6, loc="upper left")
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    figure.savefig(out, dpi=70)
    return empty


async def call_on(port: int, stop: asyncio.Event) -> None:
    """Call the gateway, ten times a second, until ``stop``; what it refuses under the fault is part of the picture."""
    body = json.dumps({"texts": ["one of a call", "another"], "timeout": 2}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/classify", data=body, headers={"content-type": "application/json"}
    )

    def call() -> None:
        with suppress(OSError), urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - as above
            answer.read()

    while not stop.is_set():
        await asyncio.to_thread(call)
        await asyncio.sleep(0.1)


async def main(out: Path, folder: Path) -> None:
    random_version(3, folder / "model.safetensors")
    async with embedded_broker() as bootstrap, AsyncExitStack() as stack:
        place = OwnTopics(bootstrap, folder / "model.safetensors", folder, embedded=True)
        place.apply()

        async def started(name: str, *command: str) -> tuple[Any, int]:
            log = folder / f"{name}.log"
            before = log.stat().st_size if log.exists() else 0
            running = await stack.enter_async_context(child(command, log=log))

            def listens() -> re.Match[str] | None:
                return re.search(r"admin\.listening.*\bport=(\d+)", log.read_text()[before:])

            return running, int((await until(listens, LIMIT_S))[1])

        async def worker(number: int) -> tuple[Any, int]:
            return await started(f"worker-{number}", *headrace(*place.command))

        workers = [await worker(number) for number in range(2)]
        _, gateway = await started("gateway", *headrace(*place.at, "--set", "gateway.port=0", "gateway", "--no-keys"))
        log = folder / "gateway.log"
        listening = await until(lambda: re.search(r"gateway\.listening.*127\.0\.0\.1:(\d+)", log.read_text()), LIMIT_S)
        others = stack.enter_context(served(driven()))
        ports = {
            "worker": [port for _, port in workers],
            "gateway": [gateway],
            **{job: [port] for job, port in others.items()},
        }
        _, own = await stack.enter_async_context(prometheus(folder, ports))
        client = await stack.enter_async_context(place.client())
        stop, begun_s = asyncio.Event(), time.time()
        sending = asyncio.create_task(publish_steadily(client, [text(n) for n in range(500)], rate=RATE, stop=stop))
        calling = asyncio.create_task(call_on(int(listening[1]), stop))
        await answered(client, 10)
        producer = await stack.enter_async_context(connected(AioKafkaCluster(place.kafka).producer()))

        async def rubbish(count: int) -> None:
            for _ in range(count):
                await producer.send(f"{place.prefix}classify.requests", Outgoing(b"{rubbish"), partition=0)
                await asyncio.sleep(0.1)

        await rubbish(2)
        await asyncio.sleep(LOAD_S)
        fault_s = time.time()
        await rubbish(50)
        for running, _ in workers:
            running.process.kill()
        await asyncio.sleep(FAULT_S)
        # On their old ports, so that Prometheus finds them.
        for number, (_, port) in enumerate(workers):
            command = (*place.at, "--set", f"admin.port={port}", *place.command[len(place.at) :])
            await started(f"worker-{number}", *headrace(*command))
        await asyncio.sleep(AFTER_S)
        empty = await asyncio.to_thread(draw, own, begun_s, fault_s, out)
        stop.set()
        await asyncio.gather(sending, calling)
    sys.stdout.write(f"{out}: empty panels: {', '.join(empty) or 'none'}\n")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(main(Path(sys.argv[1]), Path(scratch)))
