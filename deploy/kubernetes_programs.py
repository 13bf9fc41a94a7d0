"""Kubernetes' own programs and KEDA, built with Go from its module proxy: what `make kubernetes` runs.

    python -m deploy.kubernetes_programs FOLDER    # needs Go; a quarter of an hour at first

etcd and Kubernetes are tools of the modules in deploy/go-tools, whose go.sum pins them. KEDA is built in a copy of its
own module, because replacements count in a main module alone.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from deploy.kubernetes_schemas import CUSTOM, KUBERNETES, module

TOOLS: Final = Path(__file__).parent / "go-tools"
KEDA: Final = CUSTOM[0][0]
_NAMED: Final = "k8s.io/component-base/version"
_EVERYWHERE: Final = 'fmt.Sprintf(":%v", metricsAPIServerPort)'
_ON_LOOPBACK: Final = 'fmt.Sprintf("127.0.0.1:%v", metricsAPIServerPort)'


def keda_source(into: Path) -> Path:
    """A copy of KEDA's module below ``into``.

    The adapter's metrics of itself listen on loopback alone in it, for which the adapter has no flag.
    Raises ValueError where the line that says where they listen is another one.
    """
    source = into / KEDA.replace("/", "-")
    if not source.exists():
        copied = source.with_suffix(".new")
        shutil.rmtree(copied, ignore_errors=True)
        shutil.copytree(module(KEDA), copied, copy_function=shutil.copyfile)
        for folder in (copied, *(one for one in copied.rglob("*") if one.is_dir())):
            folder.chmod(0o755)  # the module cache is read-only
        adapter = copied / "cmd/adapter/main.go"
        text = adapter.read_text(encoding="utf-8")
        if text.count(_EVERYWHERE) != 1:
            raise ValueError(f"{adapter} does not say where the adapter's metrics listen as it did: look at its change")
        adapter.write_text(text.replace(_EVERYWHERE, _ON_LOOPBACK), encoding="utf-8")
        copied.rename(source)
    return source


def built(into: Path, name: str, package: str, source: Path, *flags: str) -> None:
    """Build ``package`` in the module ``source`` as ``into``/``name``. Raises CalledProcessError."""
    begun = time.monotonic()
    command = ["go", "build", "-buildvcs=false", *flags, "-o", str(into / name), package]
    subprocess.run(command, cwd=source, check=True)  # noqa: S603
    sys.stdout.write(f"{name}: {time.monotonic() - begun:.0f} s\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> int:
    """Build etcd, kube-apiserver, kube-controller-manager, keda-operator and keda-adapter into FOLDER."""
    (folder,) = arguments
    into = Path(folder)
    into.mkdir(parents=True, exist_ok=True)
    version = KUBERNETES[-1]
    major, minor, _ = version.split(".")
    stamps = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor}
    stamped = " ".join(f"-X {_NAMED}.{name}={value}" for name, value in stamps.items())
    built(into, "etcd", "go.etcd.io/etcd/server/v3", TOOLS / "etcd")
    for name in ("kube-apiserver", "kube-controller-manager"):
        built(into, name, f"k8s.io/kubernetes/cmd/{name}", TOOLS / "kubernetes", "-ldflags", stamped)
    keda = keda_source(into)
    for name in ("operator", "adapter"):
        built(into, f"keda-{name}", f"./cmd/{name}", keda)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
