"""What a pod of the chart runs, without Kubernetes: its own folder, its command line, its variables, its probes."""

from __future__ import annotations

import asyncio
import signal
import uuid
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path
from typing import Any

import pytest

from headrace.process.ports import free_ports
from headrace.security.private_folder import UnsafeFolderError, private_folder
from headrace_load.processes import within
from tests.support.charts import pods, rendered
from tests.support.pod_processes import command_of, own_folder, status_of
from tests.support.waiting import until


def manifests_on(bootstrap: str) -> list[dict[str, Any]]:
    """The chart's manifests for topics of their own on the embedded broker, which knows no static members."""
    settings = (
        f'settings.kafka={{"bootstrap":"{bootstrap}","static_members":false,"idempotent":false}},'
        f'settings.topics={{"prefix":"chart-{uuid.uuid4().hex[:8]}.","partitions":2}},'
        'settings.labeller={"teacher":"program:cat"}'
    )
    parts = ",".join(f"{name}.enabled=true" for name in ("worker", "gateway", "trainer", "labeller", "topics"))
    return rendered("none", "--set", f"{parts},store.uri=s3://models", "--set-json", settings)


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
    with pytest.raises(UnsafeFolderError), private_folder({"TMPDIR": str(tmp_path / "scratch")}).descriptor():
        pass
    with private_folder({"TMPDIR": str(own)}).descriptor():
        pass
    assert (own / "kernels" / "compiled").read_text() == "a kernel"
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
