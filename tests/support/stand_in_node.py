"""Stands for the scheduler and the kubelet of a node: each pod of the workers is a real process of this machine.

It binds pods, runs what their container says (:mod:`tests.support.pod_processes`), tells the API server when a pod is
ready by the pod's own probe, and ends the process with SIGTERM when the pod is deleted. Prometheus finds the ready ones
in a file.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from pathlib import Path
from typing import Any

from headrace.process.children import child
from headrace.process.ports import free_ports
from tests.support.control_plane import LIMIT_S, NAMESPACE, Api
from tests.support.pod_processes import command_of, own_folder, status_of
from tests.support.waiting import until

PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
OF_WORKERS = "labelSelector=app.kubernetes.io/component%3Dworker"
LOOK_S = 0.5


class StandInNode:
    """``targets`` is the file for Prometheus."""

    def __init__(self, api: Api, folder: Path, targets: Path) -> None:
        self._api = api
        self._folder = folder
        self._targets = targets
        self._kernels = folder / "kernels"
        self._kernels.mkdir(mode=0o700)
        self._deleted: dict[str, asyncio.Event] = {}
        self._ports: dict[str, int] = {}
        self.most = 0
        """The most processes that were ready at one time."""
        self._tell_prometheus()

    async def run(self) -> None:
        """Follow the pods until it is cancelled, which ends all processes. Raises what a pod's process ended with."""
        async with asyncio.TaskGroup() as group:
            while True:
                found = await asyncio.to_thread(self._api.asked, f"{PODS}?{OF_WORKERS}")
                for pod in found["items"]:
                    about = pod["metadata"]
                    if about["uid"] not in self._deleted:
                        self._deleted[about["uid"]] = asyncio.Event()
                        group.create_task(self._serve(pod))
                    if "deletionTimestamp" in about:
                        self._deleted[about["uid"]].set()
                await asyncio.sleep(LOOK_S)

    async def _serve(self, pod: dict[str, Any]) -> None:
        """A pod from its binding to its end."""
        name, uid, spec = pod["metadata"]["name"], pod["metadata"]["uid"], pod["spec"]
        to = {"kind": "Node", "name": "stand-in"}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": to}
        await asyncio.to_thread(self._api.asked, f"{PODS}/{name}/binding", binding)
        root = self._folder / uid
        root.mkdir()
        (port,) = free_ports(1)
        (volume,) = (one for one in spec["volumes"] if one["name"] == "settings")
        settings = f"/api/v1/namespaces/{NAMESPACE}/configmaps/{volume['configMap']['name']}"
        config = {"kind": "ConfigMap", **await asyncio.to_thread(self._api.asked, settings)}
        command, environ = command_of(spec, [config], await own_folder(spec, root), port)
        environ["NUMBA_CACHE_DIR"] = str(self._kernels)  # compiled once, as in the image
        grace_s = spec["terminationGracePeriodSeconds"]
        log = self._folder / f"{name}.log"
        async with child(command, log=log, name=name, environ=environ, grace_s=grace_s) as process:
            probe = spec["containers"][0]["readinessProbe"]["httpGet"]["path"]

            async def ready() -> bool:
                if self._deleted[uid].is_set():
                    return True
                process.check()
                return await asyncio.to_thread(status_of, f"http://127.0.0.1:{port}{probe}") == HTTPStatus.OK

            await until(ready, LIMIT_S)
            if not self._deleted[uid].is_set():
                conditions = [{"type": kind, "status": "True"} for kind in ("Ready", "ContainersReady", "PodScheduled")]
                told = {"status": {"phase": "Running", "podIP": "127.0.0.1", "conditions": conditions}}
                patch = {"method": "PATCH", "kind": "strategic-merge-patch+json"}
                await asyncio.to_thread(self._api.asked, f"{PODS}/{name}/status", told, **patch)
                self._ports[name] = port
                self.most = max(self.most, len(self._ports))
                self._tell_prometheus()
            ends = [asyncio.ensure_future(one) for one in (process.process.wait(), self._deleted[uid].wait())]
            try:
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for one in ends:
                    one.cancel()
            if not self._deleted[uid].is_set():
                process.check()
            self._ports.pop(name, None)
            self._tell_prometheus()
        gone = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "preconditions": {"uid": uid}}
        await asyncio.to_thread(self._api.asked, f"{PODS}/{name}", gone, method="DELETE")

    def _tell_prometheus(self) -> None:
        labels = {"job": "headrace-worker", "namespace": NAMESPACE}
        found = [
            {"targets": [f"127.0.0.1:{port}"], "labels": {**labels, "pod": name}} for name, port in self._ports.items()
        ]
        written = self._targets.with_suffix(".new")
        written.write_text(json.dumps(found), encoding="utf-8")
        written.rename(self._targets)
