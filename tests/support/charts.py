"""What the chart renders, by the real helm."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import kustomized

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "chart"
CASES = ("all", "claim", "none")
"""Files of values in deploy/chart/ci."""


def helm() -> str:
    """The path of helm. Skips the test where there is none."""
    found = kustomized.helm()
    if found is None:
        pytest.skip("helm is not here: `make deploy-tools` builds it with Go")
    return found


def rendered(case: str, *more: str) -> list[dict[str, Any]]:
    """The manifests for the values of ``case``, with ``more`` arguments of helm."""
    done = template(case, *more)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one is not None]


@functools.cache
def template(case: str | None, *more: str) -> subprocess.CompletedProcess[str]:
    """``helm template`` as it ended; ``case`` None has the chart's own values alone."""
    values = () if case is None else ("--values", str(CHART / "ci" / f"{case}-values.yaml"))
    command = (
        helm(),
        "template",
        "headrace",
        str(CHART),
        "--kube-version",
        kustomized.KUBERNETES,
        "--namespace",
        "texts",
    )
    return subprocess.run([*command, *values, *more], capture_output=True, text=True, check=False)


def of_kind(manifests: list[dict[str, Any]], *kinds: str) -> list[dict[str, Any]]:
    """Those of ``kinds``."""
    return [one for one in manifests if one["kind"] in kinds]


def pods(manifests: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The spec of each pod, by its component."""
    return {
        one["metadata"]["labels"]["app.kubernetes.io/component"]: one["spec"]["template"]["spec"]
        for one in of_kind(manifests, "StatefulSet", "Deployment", "Job")
    }
