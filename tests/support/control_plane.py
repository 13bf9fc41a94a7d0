"""Kubernetes' own API server on this machine, with its store; the programs are those that `make kubernetes` builds.

No node is there: what runs pods is :mod:`tests.support.stand_in_node`, and what scales them
:mod:`tests.support.autoscaler`.
"""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from deploy.kubernetes_schemas import CUSTOM, module
from headrace.process.children import child
from headrace.process.ports import free_ports
from tests.support.charts import helm
from tests.support.waiting import until

NAMESPACE = "texts"
TOKEN = "of-this-test"  # noqa: S105 - known to this server alone
LIMIT_S = 120.0
CLUSTER_WIDE = ("APIService", "CustomResourceDefinition", "Namespace")


def programs(*names: str) -> list[str]:
    """The paths of what `make kubernetes` builds beside helm. Skips the test where one is missing."""
    found = [Path(helm()).with_name(name) for name in names]
    for one in found:
        if not one.exists():
            pytest.skip(
                f"{one.name} is not here: `make kubernetes` builds it with Go, in a quarter of an hour at first"
            )
    return [str(one) for one in found]


class Api:
    """The API server at ``port`` of this machine, asked as a member of system:masters."""

    def __init__(self, port: int, authority: Path) -> None:
        self._at = f"https://127.0.0.1:{port}"
        self._tls = ssl.create_default_context(cafile=str(authority))
        self._plurals: dict[tuple[str, str], str] = {}

    def asked(self, path: str, body: Any = None, *, method: str | None = None, kind: str = "json") -> Any:
        """The answer to a GET, or with ``body`` to a POST, or to ``method``; ``kind`` is what the body is.

        Raises AssertionError with what the server said.
        """
        request = urllib.request.Request(  # noqa: S310 - of this machine
            f"{self._at}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": f"application/{kind}"},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, context=self._tls, timeout=20) as answer:  # noqa: S310
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error

    def answers(self, path: str) -> bool:
        """Whether a GET succeeds by now."""
        try:
            self.asked(path)
        except (AssertionError, OSError):
            return False
        return True

    def ready(self) -> bool:
        """Whether it answers, and is ready."""
        try:
            with urllib.request.urlopen(f"{self._at}/readyz", context=self._tls, timeout=5) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except OSError:
            return False

    def _serves(self, base: str, version: str, kind: str) -> bool:
        try:
            resources = self.asked(base)["resources"]
        except AssertionError:
            return False
        self._plurals |= {(version, one["kind"]): one["name"] for one in resources if "/" not in one["name"]}
        return (version, kind) in self._plurals

    async def create(self, manifest: dict[str, Any]) -> Any:
        """Create ``manifest``, in which no field may be unknown or twice; its kind may come a moment later."""
        version, kind = manifest["apiVersion"], manifest["kind"]
        base = f"/apis/{version}" if "/" in version else f"/api/{version}"
        if (version, kind) not in self._plurals:
            await until(lambda: self._serves(base, version, kind), LIMIT_S)
        namespace = manifest["metadata"].get("namespace", NAMESPACE)
        within = "" if kind in CLUSTER_WIDE else f"/namespaces/{namespace}"
        return self.asked(f"{base}{within}/{self._plurals[version, kind]}?fieldValidation=Strict", manifest)

    async def namespace(self, name: str, **labels: str) -> None:
        """Create a namespace with ``labels`` of the pod security standard."""
        told = {f"pod-security.kubernetes.io/{label}": value for label, value in labels.items()}
        await self.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": told}})

    async def define(self, *more: tuple[str, str]) -> None:
        """Create the custom resources that the chart uses, and ``more``: modules with patterns of their files."""
        for named, pattern in (*CUSTOM, *more):
            for path in sorted(module(named).glob(pattern)):
                definition = yaml.safe_load(path.read_text(encoding="utf-8"))
                definition.pop("status", None)
                await self.create(definition)


class Certificates:
    """An authority of the test's own, and what it signs, as files of one folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self._authority = trustme.CA()
        self.authority = folder / "ca.crt"
        self._authority.cert_pem.write_to_path(str(self.authority))

    def issue(self, name: str, *identities: str, common_name: str | None = None) -> tuple[Path, Path]:
        """The files of a certificate and of its key, under the names that KEDA looks for when ``name`` is tls."""
        made = self._authority.issue_cert(*identities, common_name=common_name)
        certificate, key = (self.folder / f"{name}.{ending}" for ending in ("crt", "key"))
        made.cert_chain_pems[0].write_to_path(str(certificate))
        made.private_key_pem.write_to_path(str(key))
        return certificate, key


class ControlPlane:
    """A running API server: how to ask it, and what other programs need for that."""

    def __init__(self, folder: Path, port: int, certificates: Certificates) -> None:
        self.folder = folder
        self.certificates = certificates
        self.api = Api(port, certificates.authority)
        self.kubeconfig = folder / "kubeconfig"
        cluster = {"server": f"https://127.0.0.1:{port}", "certificate-authority": str(certificates.authority)}
        told = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "here", "cluster": cluster}],
            "users": [{"name": "admin", "user": {"token": TOKEN}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "admin"}}],
            "current-context": "here",
        }
        self.kubeconfig.write_text(yaml.safe_dump(told), encoding="utf-8")


@asynccontextmanager
async def control_plane(folder: Path) -> AsyncIterator[ControlPlane]:
    """etcd and the API server on loopback. Other API servers behind it know it by its certificate as a front proxy."""
    etcd, server = programs("etcd", "kube-apiserver")
    client, peer, secure = free_ports(3)
    at, beside = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
    store = (
        *(etcd, "--data-dir", str(folder / "etcd"), "--listen-client-urls", at, "--advertise-client-urls", at),
        *("--listen-peer-urls", beside, "--initial-advertise-peer-urls", beside),
        *("--initial-cluster", f"default={beside}"),
    )
    certificates = Certificates(folder / "certificates")
    certificate, key = certificates.issue("api", "127.0.0.1", "localhost")
    front, front_key = certificates.issue("front-proxy", "front-proxy.invalid", common_name="front-proxy-client")
    (folder / "tokens.csv").write_text(f'{TOKEN},admin,1,"system:masters"\n', encoding="utf-8")
    serving = (
        *(server, f"--etcd-servers={at}", "--bind-address=127.0.0.1", f"--secure-port={secure}"),
        *(f"--tls-cert-file={certificate}", f"--tls-private-key-file={key}"),
        *(f"--token-auth-file={folder / 'tokens.csv'}", "--authorization-mode=RBAC"),
        *(f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}"),
        *("--service-account-issuer=https://headrace.invalid", "--service-cluster-ip-range=10.0.0.0/24"),
        *(f"--requestheader-client-ca-file={certificates.authority}", f"--proxy-client-cert-file={front}"),
        *(f"--proxy-client-key-file={front_key}", "--requestheader-allowed-names=front-proxy-client"),
        *("--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group"),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
    )
    plane = ControlPlane(folder, secure, certificates)
    async with child(store, log=folder / "etcd.log"), child(serving, log=folder / "api-server.log"):
        await until(plane.api.ready, LIMIT_S)
        yield plane
