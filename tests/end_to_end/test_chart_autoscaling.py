"""Workers from one to as many as partitions and back: the chart under KEDA and Kubernetes' autoscaler, by real lag.

Real are Apache Kafka with its lag, the worker processes, Prometheus, the API server, the controllers of StatefulSets
and of the autoscaler, KEDA's operator and its adapter. Only the node is not (:mod:`tests.support.stand_in_node`). The
chart's waits before workers leave are shortened; its triggers, bounds and steps are as it renders them.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from deploy.kubernetes_programs import KEDA
from headrace.client import Client, Published, connect
from headrace.kafka.aio import AioKafkaCluster
from headrace.kafka.interface import Admin, BrokerUnavailableError, TopicPartition, connected
from headrace.kafka.settings import KafkaSettings
from headrace.process.children import Child, child
from headrace.process.ports import free_ports
from tests.support.autoscaler import METRICS, autoscaler
from tests.support.charts import pods, rendered
from tests.support.control_plane import LIMIT_S, NAMESPACE, Api, control_plane
from tests.support.log_audit import audit
from tests.support.pod_processes import command_of, own_folder
from tests.support.random_versions import text
from tests.support.stand_in_node import StandInNode
from tests.support.waiting import until

pytestmark = [pytest.mark.apache, pytest.mark.slow]

PARTITIONS = 4
# What the reference backend answers a second, more or less. A worker as slow as that has lag on a small machine too.
CAPACITY, DRAIN_S = 50, 10
WORTH = CAPACITY * DRAIN_S
"""The lag that is one worker's work."""
BURST = 500
SYNC_S = 5
GROUP, PREFIX = "scaled", "scaled."
REQUESTS = f"{PREFIX}classify.requests"
STATEFUL_SET = f"/apis/apps/v1/namespaces/{NAMESPACE}/statefulsets/headrace-worker"
SCALED_OBJECT = f"/apis/keda.sh/v1alpha1/namespaces/{NAMESPACE}/scaledobjects/headrace-worker"
AUTOSCALER = f"/apis/autoscaling/v2/namespaces/{NAMESPACE}/horizontalpodautoscalers/keda-hpa-headrace-worker"
KAFKA_LAG = (
    f"{METRICS}/namespaces/{NAMESPACE}/s1-kafka-{REQUESTS.replace('.', '-')}"
    "?labelSelector=scaledobject.keda.sh/name%3Dheadrace-worker"
)


def manifests_on(bootstrap: str, model: Path, prometheus: int) -> list[dict[str, Any]]:
    """The chart's manifests: workers on topics of their own, scaled by KEDA."""
    settings = {
        "kafka": {"bootstrap": bootstrap},
        "topics": {"prefix": PREFIX, "partitions": PARTITIONS},
        "worker": {"group": GROUP, "model": str(model), "backend": "reference", "max_batch": 16},
    }
    keda = {
        "enabled": True,
        "maxReplicas": PARTITIONS,
        "prometheus": f"http://127.0.0.1:{prometheus}",
        "drainSeconds": DRAIN_S,
        "capacity": CAPACITY,
    }
    whole = [f"{name}={json.dumps(value)}" for name, value in (("settings", settings), ("keda", keda))]
    enabled = "worker.enabled=true,worker.replicas=1,topics.enabled=true"
    return rendered("none", "--set", enabled, "--set-json", whole[0], "--set-json", whole[1])


def hastened(scaled: dict[str, Any]) -> dict[str, Any]:
    """The ScaledObject with its waits shortened: 600 s before workers leave to 30 s, a step of 60 s to 15 s."""
    behavior = scaled["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    behavior["scaleDown"]["stabilizationWindowSeconds"] = 30
    for policy in (*behavior["scaleUp"]["policies"], *behavior["scaleDown"]["policies"]):
        policy["periodSeconds"] = 15
    return scaled


def number(quantity: str) -> float:
    """A quantity as Kubernetes writes it: 1500m is 1.5, 2k is 2000."""
    return float(quantity.removesuffix("m")) / 1000 if quantity.endswith("m") else float(quantity.replace("k", "e3"))


@asynccontextmanager
async def prometheus(folder: Path, port: int, targets: Path) -> AsyncIterator[None]:
    """Prometheus, which scrapes what ``targets`` names each second."""
    program = shutil.which("prometheus")
    assert program is not None
    file = folder / "prometheus.yaml"
    scrape = f"  - job_name: headrace-worker\n    file_sd_configs: [{{files: ['{targets}'], refresh_interval: 1s}}]\n"
    file.write_text(f"global: {{scrape_interval: 2s}}\nscrape_configs:\n{scrape}", encoding="utf-8")
    storage = (f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address=127.0.0.1:{port}")
    async with child((program, f"--config.file={file}", *storage), log=folder / "prometheus.log"):
        yield


class Course:
    """What is published and answered, and how many workers there are; each change is a line of the transcript."""

    def __init__(self, api: Api, admin: Admin, client: Client, transcript: Path) -> None:
        self.api = api
        self._admin = admin
        self._client = client
        self._begun = time.monotonic()
        self._transcript = transcript
        self._last: tuple[int, ...] = ()
        self.published: list[Published] = []
        self.replicas: list[int] = []
        """Each number of workers that was wanted, in its order."""
        self.ready = 0
        transcript.write_text("", encoding="utf-8")

    def say(self, line: str) -> None:
        """A line of the transcript."""
        with self._transcript.open("a", encoding="utf-8") as file:
            file.write(f"{time.monotonic() - self._begun:5.0f} s  {line}\n")

    async def publish(self, count: int) -> None:
        """Publish ``count`` requests."""
        self.published += await self._client.publish_many(text(number) for number in range(count))

    async def lag(self) -> int:
        """Requests that the group has not committed, by Kafka itself."""

        async def asked() -> list[dict[TopicPartition, int]]:
            try:
                return [await self._admin.group_offsets(GROUP)]
            except BrokerUnavailableError:  # the broker's first group: its coordinator is on the way
                return []

        (committed,) = await until(asked)
        return len(self.published) - sum(at for one, at in committed.items() if one.topic == REQUESTS)

    async def settled(self, workers: int) -> bool:
        """Whether ``workers`` are wanted and ready now; it looks once."""
        scaled = await asyncio.to_thread(self.api.asked, STATEFUL_SET)
        wanted, pods_now = scaled["spec"]["replicas"], scaled["status"].get("replicas", 0)
        self.ready = scaled["status"].get("readyReplicas", 0)
        if self.replicas[-1:] != [wanted]:
            self.replicas.append(wanted)
        if (wanted, pods_now, self.ready) != self._last:
            self._last = (wanted, pods_now, self.ready)
            known = (await asyncio.to_thread(self.api.asked, AUTOSCALER)).get("status", {}).get("currentMetrics") or ()
            told = [one["external"] for one in known if "external" in one]
            means = [
                f"{one['metric']['name'][:8]} {number(one['current'].get('averageValue', '0')):.4g}" for one in told
            ]
            self.say(
                f"wanted {wanted}, pods {pods_now}, ready {self.ready}; lag {await self.lag()} of "
                f"{len(self.published)}; the autoscaler sees, a worker: {', '.join(means) or 'nothing'}"
            )
        return wanted == pods_now == self.ready == workers


async def create_topics(manifests: list[dict[str, Any]], folder: Path) -> None:
    """Create the topics by the command of the chart's own job, which runs in ``folder``."""
    job = pods(manifests)["topics"]
    command, environ = command_of(job, manifests, await own_folder(job, folder), 0)
    made = await asyncio.create_subprocess_exec(*command, env=environ, stdout=PIPE, stderr=STDOUT)
    said, _ = await made.communicate()
    assert b"created" in said, said.decode()


async def never_committed(course: Course, manifests: list[dict[str, Any]], running: list[Child]) -> None:
    """KEDA makes the autoscaler of the ScaledObject, and its adapter counts all that waits (KEDA #2033).

    It raises lag to the work of as many workers as get the same number of partitions: of two, here. A group that begins
    with the latest, or one whose lag is not known, is one worker's work.
    """

    def there(path: str) -> bool:
        for one in running:
            one.check()
        return course.api.answers(path)

    await course.publish(WORTH + 100)
    course.say(f"{len(course.published)} requests are published; the group has never committed")
    for manifest in manifests:
        await course.api.create(hastened(manifest) if manifest["kind"] == "ScaledObject" else manifest)
    course.say(f"the API server took {len(manifests)} manifests of the chart")
    await until(lambda: there(AUTOSCALER), LIMIT_S)
    await course.settled(1)
    limits = (await asyncio.to_thread(course.api.asked, AUTOSCALER))["spec"]
    assert (limits["minReplicas"], limits["maxReplicas"]) == (1, PARTITIONS)
    await until(lambda: there(KAFKA_LAG), LIMIT_S)
    lag = number((await asyncio.to_thread(course.api.asked, KAFKA_LAG))["items"][0]["value"])
    assert lag == 2 * WORTH
    course.say(f"KEDA made an autoscaler of 1 to {PARTITIONS}; its adapter tells a Kafka lag of {lag:.0f}: two workers")


async def from_one_to_all_and_back(course: Course, followed: asyncio.Task[None]) -> None:
    """Publish until all workers are there, then no more, until one is left."""

    async def settled(workers: int) -> bool:
        if followed.done():
            followed.result()
        return await course.settled(workers)

    async def begun() -> bool:
        await settled(1)
        return course.ready > 0

    async def flooded() -> bool:
        if await course.lag() < PARTITIONS * WORTH:
            await course.publish(BURST)
        return await settled(PARTITIONS)

    async def drained() -> bool:
        await settled(1)
        return await course.lag() == 0

    await until(begun, LIMIT_S)
    course.say(f"requests come until {PARTITIONS} workers answer")
    await until(flooded, 4 * LIMIT_S)
    course.say(f"{PARTITIONS} workers answer; no more requests come")
    await until(drained, 4 * LIMIT_S)
    course.say("lag is 0")
    await until(lambda: settled(1), 5 * LIMIT_S)
    course.say("one worker is left")


async def test_workers_follow_real_lag_from_one_to_the_partitions_and_back(
    apache_bootstrap: str, model: Path, tmp_path: Path
) -> None:
    if shutil.which("prometheus") is None:
        pytest.skip("Prometheus is not installed (Debian and Ubuntu: apt install prometheus)")
    transcript = Path(os.environ.get("HEADRACE_TRANSCRIPT", tmp_path / "transcript.txt"))
    targets = tmp_path / "targets.json"
    (port,) = free_ports(1)
    manifests = manifests_on(apache_bootstrap, model, port)
    kafka = KafkaSettings(bootstrap=apache_bootstrap)
    (tmp_path / "job").mkdir()
    await create_topics(manifests, tmp_path / "job")
    async with (
        control_plane(tmp_path) as plane,
        connect(kafka=kafka, requests=REQUESTS, results=f"{PREFIX}classify.results") as client,
        connected(AioKafkaCluster(kafka).admin()) as admin,
    ):
        await plane.api.define((KEDA, "config/crd/bases/eventing.keda.sh_*.yaml"))
        await plane.api.namespace(NAMESPACE, enforce="restricted")
        course = Course(plane.api, admin, client, transcript)
        node = StandInNode(plane.api, tmp_path, targets)
        async with autoscaler(plane, sync_s=SYNC_S) as running, prometheus(tmp_path, port, targets):
            await never_committed(course, manifests, running)
            followed = asyncio.create_task(node.run())
            try:
                await from_one_to_all_and_back(course, followed)
            finally:
                followed.cancel()
                await asyncio.wait({followed})
        found = await audit(client, course.published)
        course.say(found.line())
    assert found.kept, found.line()
    assert found.by_status == {"ok": len(course.published)}
    assert node.most == PARTITIONS
    most = course.replicas.index(PARTITIONS)
    assert course.replicas[0] == course.replicas[-1] == 1
    assert course.replicas == sorted(course.replicas[:most]) + sorted(course.replicas[most:], reverse=True)
