"""What scales workers on Kubernetes: the controller manager with its autoscaler, and KEDA's operator and adapter."""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from headrace.process.children import Child, child
from headrace.process.ports import free_ports
from tests.support.control_plane import LIMIT_S, ControlPlane, programs
from tests.support.waiting import until

NAMESPACE = "keda"
METRICS = "/apis/external.metrics.k8s.io/v1beta1"
ADAPTER = {"name": "keda-metrics-apiserver", "namespace": NAMESPACE}
CONTROLLERS = ("horizontal-pod-autoscaler-controller", "statefulset-controller", "serviceaccount-controller")


@asynccontextmanager
async def autoscaler(plane: ControlPlane, *, sync_s: int) -> AsyncIterator[list[Child]]:
    """The programs, while they run; the autoscaler looks every ``sync_s`` seconds, where a cluster's does every 15."""
    manager, operator, adapter = programs("kube-controller-manager", "keda-operator", "keda-adapter")
    # The operator tells metrics to the adapter alone: each shows the other this certificate.
    certificate, key = plane.certificates.issue("tls", "127.0.0.1", "{name}.{namespace}.svc".format_map(ADAPTER))
    served, told, probes, *own = free_ports(5)
    at, config = plane.certificates.folder, plane.kubeconfig
    asking = (f"--authentication-kubeconfig={config}", f"--authorization-kubeconfig={config}")
    commands = {
        "controllers": (
            *(manager, f"--kubeconfig={config}", *asking, "--leader-elect=false"),
            *(f"--controllers={','.join(CONTROLLERS)}", "--bind-address=127.0.0.1", "--secure-port=0"),
            f"--horizontal-pod-autoscaler-sync-period={sync_s}s",
        ),
        "keda-operator": (
            *(operator, f"--kubeconfig={config}", f"--cert-dir={at}", "--zap-encoder=console"),
            *(f"--metrics-service-bind-address=127.0.0.1:{told}", f"--health-probe-bind-address=127.0.0.1:{probes}"),
            f"--metrics-bind-address=127.0.0.1:{own[0]}",
        ),
        "keda-adapter": (
            *(adapter, f"--kubeconfig={config}", f"--lister-kubeconfig={config}", *asking, f"--cert-dir={at}"),
            *("--bind-address=127.0.0.1", f"--secure-port={served}", f"--port={own[1]}"),
            *(f"--tls-cert-file={certificate}", f"--tls-private-key-file={key}"),
            *(f"--client-ca-file={plane.certificates.authority}", f"--metrics-service-address=127.0.0.1:{told}"),
        ),
    }
    await plane.api.namespace(NAMESPACE)
    told_by_pods = {"POD_NAMESPACE": NAMESPACE, "KEDA_CLUSTER_OBJECT_NAMESPACE": NAMESPACE, "WATCH_NAMESPACE": ""}
    environ = {**os.environ, **told_by_pods}
    async with AsyncExitStack() as stack:
        running = [
            await stack.enter_async_context(
                child(command, log=plane.folder / f"{name}.log", name=name, environ=environ)
            )
            for name, command in commands.items()
        ]
        await register(plane, served)

        def metrics() -> bool:
            for one in running:
                one.check()
            return plane.api.answers(METRICS)

        await until(metrics, LIMIT_S)
        yield running


async def register(plane: ControlPlane, port: int) -> None:
    """Tell the API server that the adapter at ``port`` serves external metrics.

    There is no network of services; by one of type ExternalName it finds an address of this machine.
    """
    service = {"type": "ExternalName", "externalName": "127.0.0.1"}
    await plane.api.create({"apiVersion": "v1", "kind": "Service", "metadata": dict(ADAPTER), "spec": service})
    group, version = METRICS.split("/")[2:]
    registered = {
        "group": group,
        "version": version,
        "groupPriorityMinimum": 100,
        "versionPriority": 100,
        "service": {**ADAPTER, "port": port},
        "caBundle": base64.b64encode(plane.certificates.authority.read_bytes()).decode(),
    }
    about = {"name": f"{version}.{group}"}
    kind = {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService"}
    await plane.api.create({**kind, "metadata": about, "spec": registered})
