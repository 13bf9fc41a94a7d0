"""What a pod of the chart runs, without Kubernetes: its own folder, its command line, its variables, its probes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import urllib.error
import urllib.request
import uuid
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path
from typing import Any

import pytest

from headrace.process.ports import free_ports
from headrace.security.private_folder import UnsafeFolderError, private_folder
from headrace_load.processes import within
from tests.support.charts import of_kind, pods, rendered
from tests.support.waiting import until

WITHOUT = ("HEADRACE_", "XDG_RUNTIME_DIR")


def manifests_on(bootstrap: str) -> list[dict[str, Any]]:
    """The chart's manifests for topics of their own on the embedded broker, which knows no static members."""
    settings = (
        f'settings.kafka={{"bootstrap":"{bootstrap}","static_members":false,"idempotent":false}},'
        f'settings.topics={{"prefix":"chart-{uuid.uuid4().hex[:8]}.","partitions":2}},'
        'settings.labeller={"teacher":"program:cat"}'
    )
    parts = ",".join(f"{name}.enabled=true" for name in ("worker", "gateway", "trainer", "labeller", "topics"))
    return rendered("none", "--set", f"{parts},store.uri=s3://models", "--set-json", settings)


async def own_folder(pod: dict[str, Any], root: Path) -> Path:
    """What the pod's first container makes of an emptyDir, which anybody may write when it is fresh."""
    (first,) = pod["initContainers"]
    scratch, kernels = root / "scratch", root / "kernels"
    scratch.mkdir()
    scratch.chmod(0o777)
    kernels.mkdir()
    (kernels / "compiled").write_text("a kernel")
    environ = {**os.environ, "SCRATCH": str(scratch), "KERNELS": str(kernels)}
    made = await asyncio.create_subprocess_exec(*first["command"], *first["args"], env=environ)
    assert await made.wait() == 0
    own = scratch / "own"
    with pytest.raises(UnsafeFolderError), private_folder({"TMPDIR": str(scratch)}).descriptor():
        pass
    # As /tmp in the pod it has no parent that others write.
    own = own.rename(root / "tmp")
    with private_folder({"TMPDIR": str(own)}).descriptor():
        pass
    assert (own / "kernels" / "compiled").read_text() == "a kernel"
    return own


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


@pytest.mark.parametrize(
    "name",
    [
        "worker",
        "gateway",
        # They load torch first.
        pytest.param("trainer", marks=pytest.mark.slow),
        pytest.param("labeller", marks=pytest.mark.slow),
    ],
)
async def test_a_pods_process_answers_its_probes_and_drains(name: str, embedded_bootstrap: str, tmp_path: Path) -> None:
    manifests = manifests_on(embedded_bootstrap)
    every = pods(manifests)
    pod = every[name]
    own = await own_folder(pod, tmp_path)
    (port,) = free_ports(1)

    # The topics, by the chart's own job.
    command, environ = command_of(every["topics"], manifests, own, 0)
    job = await asyncio.create_subprocess_exec(*command, env=environ, stdout=PIPE, stderr=STDOUT)
    said, _ = await job.communicate()
    assert b"created" in said, said.decode()

    command, environ = command_of(pod, manifests, own, port)
    process = await asyncio.create_subprocess_exec(*command, env=environ, stdout=PIPE, stderr=STDOUT)
    try:
        container = pod["containers"][0]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            asked = container[probe]["httpGet"]
            assert asked["port"] == "admin"
            url = f"http://127.0.0.1:{port}{asked['path']}"

            async def status(url: str = url) -> int | None:
                found = await asyncio.to_thread(status_of, url)
                assert process.returncode is None, (await process.communicate())[0].decode()
                return found

            # A worker without a version, a labeller without one: alive, and not ready.
            expected = {200} if probe != "readinessProbe" else {200, 503}
            assert await until(status) in expected
        process.send_signal(signal.SIGTERM)
        async with within(pod["terminationGracePeriodSeconds"], f"the end of {command[3:]}"):
            said, _ = await process.communicate()
        assert process.returncode == 0, said.decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
