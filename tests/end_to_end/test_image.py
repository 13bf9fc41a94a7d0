"""The images of the Containerfile, started as they say, without an engine: each answers a text. `make image` runs it.

What an engine would do is done by a mount namespace and chroot: the image's files, user, variables and command.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from headrace.process.children import child
from headrace.process.ports import free_ports
from tests.support.own_topics import EMBEDDED, LIMIT_S, OwnTopics
from tests.support.random_versions import random_version
from tests.support.waiting import until
from tests.unit.deploy.test_locked_image import locked

BUILT = Path(os.environ.get("HEADRACE_IMAGES", ""))
LOCKS = {"cpu": "requirements.lock", "cuda": "cuda.lock"}
TARGETS = [target for target in LOCKS if (BUILT / f"{target}.root").is_file()]
ENTER = (
    'root=$1 user=$2; shift 2; mount -t proc proc "$root/proc" && mount --rbind /dev "$root/dev" && '
    'exec chroot --userspec="$user:$user" "$root" /usr/bin/env -i "$@"'
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not TARGETS, reason="HEADRACE_IMAGES names no folder of images: `make image` builds them"),
]


class Image:
    """A built image: what it says of itself, and its files below ``root``."""

    def __init__(self, target: str) -> None:
        self.root = Path((BUILT / f"{target}.root").read_text(encoding="utf-8").strip())
        told = json.loads((BUILT / f"{target}.json").read_text(encoding="utf-8"))
        self.config: dict[str, Any] = told["Docker"]["config"]

    def command(self, *command: str, **variables: str) -> tuple[str, ...]:
        """``command`` in the image, by its user and with its variables and some more."""
        environ = (*self.config["Env"], *(f"{name}={value}" for name, value in variables.items()))
        enter = ("unshare", "--mount", "--propagation", "private", "sh", "-c", ENTER, "sh")
        return (*enter, str(self.root), self.config["User"], *environ, *command)

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*command, **variables), capture_output=True, text=True, check=False)


@pytest.fixture(params=TARGETS)
def image(request: pytest.FixtureRequest) -> Image:
    return Image(request.param)


async def test_an_image_answers_is_well_and_drains(image: Image, embedded_bootstrap: str, tmp_path: Path) -> None:
    random_version(3, tmp_path / "model.safetensors")
    model = image.root / "store" / "model.safetensors"
    shutil.copyfile(tmp_path / "model.safetensors", model)
    model.chmod(0o644)
    place = OwnTopics(embedded_bootstrap, None, tmp_path, embedded=True)
    place.apply()
    variables = {
        "HEADRACE_KAFKA__BOOTSTRAP": embedded_bootstrap,
        "HEADRACE_TOPICS__PREFIX": place.prefix,
        "HEADRACE_ADMIN__HOST": "127.0.0.1",
        "HEADRACE_ADMIN__PORT": str(free_ports(1)[0]),
        "HEADRACE_WORKER__GROUP": f"{place.prefix}workers",
    }
    for one in EMBEDDED:
        name, _, value = one.removeprefix("--set=").partition("=")
        variables[f"HEADRACE_{name.replace('.', '__').upper()}"] = value
    health, *check = image.config["Healthcheck"]["Test"]
    assert health == "CMD"
    assert image.run(*check, **variables).returncode != 0, "nobody answers yet, and the image is well"

    started = image.command(
        *image.config["Entrypoint"], *image.config["Cmd"], "--model", "/store/model.safetensors", **variables
    )
    async with child(started, log=place.log) as worker, place.client() as client:
        await place.logged(r"partition\.resumed")
        assert set(psutil.Process(worker.pid).uids()) == {10001}
        answer = await client.classify("the good film", timeout=LIMIT_S)
        assert answer.status == "ok"
        assert answer.label

        async def well() -> bool:
            return (await asyncio.to_thread(image.run, *check, **variables)).returncode == 0

        await until(well, LIMIT_S)
        worker.process.send_signal(signal.SIGTERM)
        assert await worker.process.wait() == 0, place.log.read_text(encoding="utf-8")
    assert json.loads(place.log.read_text(encoding="utf-8").splitlines()[0])["event"]


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_holds_what_its_lock_and_so_its_sbom_lists(target: str) -> None:
    said = Image(target).run("python", "-m", "pip", "--disable-pip-version-check", "list", "--format", "json")
    assert said.returncode == 0, said.stderr
    found = {one["name"].lower().replace("_", "-").replace(".", "-"): one["version"] for one in json.loads(said.stdout)}
    wanted = {name: next(iter(one.specifier)).version for name, (one, _) in locked(LOCKS[target]).items()}
    # The environment itself has these, and headrace is what is locked for.
    extra = found.keys() - wanted.keys()
    assert extra <= {"headrace", "pip", "setuptools"}
    assert {name: found.get(name) for name in wanted} == wanted
