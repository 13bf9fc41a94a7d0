"""The chart's manifests against the schemas of three versions of Kubernetes, and of the operators beside it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from deploy import kubernetes_schemas, kustomized
from tests.support.charts import CASES, ROOT, helm, template

pytestmark = pytest.mark.slow
# The tool that makes their schemas is on no registry.
UNKNOWN = "KafkaTopic,KafkaUser"


def tool(name: str) -> str:
    """The path of a tool beside helm. Skips the test where there is none."""
    path = Path(helm()).with_name(name)
    if not path.exists():
        pytest.skip(f"{name} is not here: `make deploy-tools` builds it with Go")
    return str(path)


@pytest.fixture(scope="module")
def schemas(tmp_path_factory) -> Path:
    if shutil.which("go") is None:
        pytest.skip("Go is not here, by whose proxy the schemas come")
    folder = tmp_path_factory.mktemp("schemas")
    kubernetes_schemas.main([str(folder)])
    return folder


def validated(schemas: Path, version: str, manifests: str) -> subprocess.CompletedProcess[str]:
    """kubeconform as it ended on ``manifests``."""
    location = f"{schemas}/{{{{.NormalizedKubernetesVersion}}}}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
    command = [tool("kubeconform"), "-strict", "-summary", "-kubernetes-version", version, "-skip", UNKNOWN]
    return subprocess.run(
        [*command, "-schema-location", location], input=manifests, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("version", kubernetes_schemas.KUBERNETES)
@pytest.mark.parametrize("case", CASES)
def test_the_manifests_are_valid(case: str, version: str, schemas: Path) -> None:
    done = validated(schemas, version, template(case).stdout)
    assert done.returncode == 0, done.stdout
    assert "Errors: 0" in done.stdout


@pytest.mark.parametrize("base", ["example", "strimzi"])
def test_what_kustomize_builds_is_valid(base: str, schemas: Path) -> None:
    folder = ROOT / "deploy" / "kustomize" / base
    built = subprocess.run([tool("kustomize"), "build", str(folder)], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    done = validated(schemas, kubernetes_schemas.KUBERNETES[-1], built.stdout)
    assert done.returncode == 0, done.stdout


def test_a_field_that_there_is_not_is_found(schemas: Path) -> None:
    """The schemas are strict: what Kubernetes would leave out silently is an error here."""
    odd = template("claim").stdout.replace("podManagementPolicy: Parallel", "podManagementPolicie: Parallel")
    done = validated(schemas, kubernetes_schemas.KUBERNETES[-1], odd)
    assert done.returncode != 0
    assert "podManagementPolicie" in done.stdout


def test_the_version_that_helm_renders_for_is_one_of_them() -> None:
    assert kustomized.KUBERNETES.rpartition(".")[0] in {one.rpartition(".")[0] for one in kubernetes_schemas.KUBERNETES}
