"""What a pod of the chart runs, as a process of this machine: its own folder, its command line, its variables."""

from __future__ import annotations

import asyncio
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.support.charts import of_kind

WITHOUT = ("HEADRACE_", "XDG_RUNTIME_DIR")


async def own_folder(pod: dict[str, Any], root: Path) -> Path:
    """What the pod's first container makes of ``root``/scratch, which stands for an emptyDir: anybody may write it."""
    (first,) = pod["initContainers"]
    scratch, kernels = root / "scratch", root / "kernels"
    scratch.mkdir()
    scratch.chmod(0o777)
    kernels.mkdir()
    (kernels / "compiled").write_text("a kernel")
    environ = {**os.environ, "SCRATCH": str(scratch), "KERNELS": str(kernels)}
    made = await asyncio.create_subprocess_exec(*first["command"], *first["args"], env=environ)
    assert await made.wait() == 0
    # As /tmp in the pod it has no parent that others write.
    return (scratch / "own").rename(root / "tmp")


def command_of(
    pod: dict[str, Any], manifests: list[dict[str, Any]], own: Path, port: int
) -> tuple[list[str], dict[str, str]]:
    """The container's command line and variables, with the paths and ports of this machine."""
    (settings,) = of_kind(manifests, "ConfigMap")
    file = own / "headrace.toml"
    file.write_text(settings["data"]["headrace.toml"], encoding="utf-8")
    (own / "labels.toml").write_text("[labels.one]\n[labels.two]\n", encoding="utf-8")
    (container,) = pod["containers"]
    arguments = [str(file) if one == "/etc/headrace/headrace.toml" else one for one in container["args"]]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(WITHOUT)}
    environ |= {one["name"]: one["value"].replace("/tmp", str(own), 1) for one in container["env"] if "value" in one}  # noqa: S108
    environ |= {
        "HEADRACE_ADMIN__PORT": str(port),
        "HEADRACE_ADMIN__HOST": "127.0.0.1",
        "HEADRACE_GATEWAY__HOST": "127.0.0.1",
        "HEADRACE_GATEWAY__PORT": "0",
        "HEADRACE_TRAINER__STORE": str(own / "store"),
        # Where the values name a ConfigMap of labels it is mounted.
        "HEADRACE_TEACHER__LABELS": str(own / "labels.toml"),
    }
    return [sys.executable, "-m", "headrace", *arguments], environ


def status_of(url: str) -> int | None:
    """The status of the answer, None where nobody answers yet."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - of this machine
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None
