"""The chart on Kubernetes' own API server: it takes each manifest, and admits each pod where pods are restricted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.charts import pods, rendered
from tests.support.control_plane import NAMESPACE, Api, control_plane

pytestmark = pytest.mark.slow


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    """An API server with a namespace of the restricted standard, and KEDA's and the Prometheus operator's resources."""
    async with control_plane(tmp_path) as plane:
        await plane.api.define()
        await plane.api.namespace(NAMESPACE, enforce="restricted")
        yield plane.api


async def test_the_api_server_takes_the_chart_and_admits_its_pods(api: Api) -> None:
    manifests = rendered("all")
    known = [one for one in manifests if not one["apiVersion"].startswith("kafka.strimzi.io/")]
    taken = [(await api.create(manifest))["kind"] for manifest in known]
    assert {"StatefulSet", "Deployment", "Job", "ScaledObject", "NetworkPolicy", "PodDisruptionBudget"} <= set(taken)
    for name, spec in pods(manifests).items():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"of-{name}"}, "spec": spec}
        assert (await api.create(pod))["metadata"]["name"] == f"of-{name}"


async def test_a_pod_that_is_not_restricted_is_refused(api: Api) -> None:
    """So the namespace of the test above does enforce the standard."""
    manifests = rendered("all")
    for one in manifests:
        if one["kind"] == "ServiceAccount":
            await api.create(one)
    spec = pods(manifests)["worker"]
    spec["containers"][0]["securityContext"].pop("capabilities")
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "odd"}, "spec": spec}
    with pytest.raises(AssertionError, match="violates PodSecurity"):
        await api.create(pod)
