"""The wheel and the sdist, as somebody installs them: in an empty environment, by role."""

from __future__ import annotations

import asyncio
import importlib.metadata
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from headrace_load.processes import slowness, until
from tests.support.own_topics import LIMIT_S, OwnTopics
from tests.support.random_versions import random_version

CHECKOUT = Path(__file__).parents[2]
INSTALL_LIMIT_S = 300.0


def run(*command: str | Path, folder: Path, limit_s: float = LIMIT_S) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=limit_s * slowness(),
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the sdist of this checkout, and the wheel that is built from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    done = run(sys.executable, "-m", "build", "--outdir", folder, CHECKOUT, folder=folder, limit_s=INSTALL_LIMIT_S)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder


@pytest.fixture
def installed(built, tmp_path):
    """A function that installs a role of the wheel in an environment with nothing else, and gives its bin folder."""

    def install(role: str) -> Path:
        (wheel,) = built.glob("*.whl")
        environment = tmp_path / "environment"
        assert run(sys.executable, "-m", "venv", environment, folder=tmp_path).returncode == 0
        pip = (
            environment / "bin" / "python",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-compile",
            "--disable-pip-version-check",
        )
        done = run(*pip, f"{wheel}{role}", folder=tmp_path, limit_s=INSTALL_LIMIT_S)
        assert done.returncode == 0, done.stderr[-2000:]
        return environment / "bin"

    return install


def test_the_wheel_has_the_modules_and_data_files_of_the_checkout(built):
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    packages = {
        CHECKOUT / "services": "headrace",
        CHECKOUT / "schemas": "headrace_schemas",
        CHECKOUT / "load": "headrace_load",
    }
    tracked = run("git", "ls-files", folder=CHECKOUT).stdout.splitlines()
    expected = {
        str((CHECKOUT / name).relative_to(folder))
        for folder, package in packages.items()
        for name in tracked
        if (CHECKOUT / name).is_relative_to(folder / package) and not name.endswith((".gitattributes", "README.md"))
    }
    assert expected
    assert expected - names == set()


def test_neither_has_tests_or_anything_that_lay_about(built):
    (sdist,) = built.glob("*.tar.gz")
    (wheel,) = built.glob("*.whl")
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"headrace", "headrace_schemas", "headrace_load"}
    with tarfile.open(sdist) as archive:
        parts = {tuple(name.split("/")[1:2]) for name in archive.getnames()}
    assert ("shared",) not in parts
    assert (".venv",) not in parts


def test_the_base_alone_has_the_client_and_the_command_line(installed, tmp_path):
    bin_folder = installed("")
    version = run(bin_folder / "headrace", "--version", folder=tmp_path)
    assert (version.returncode, version.stdout.split()[0]) == (0, "headrace"), version.stderr
    program = "import sys, headrace.client, headrace_schemas; print('numpy' in sys.modules)"
    imported = run(bin_folder / "python", "-c", program, folder=tmp_path)
    assert (imported.returncode, imported.stdout) == (0, "False\n"), imported.stderr
    without_the_role = run(bin_folder / "headrace", "worker", "--model", "champion", folder=tmp_path)
    assert without_the_role.returncode == 1
    assert "[worker]" in without_the_role.stderr
    assert "Traceback" not in without_the_role.stderr


@pytest.mark.slow  # the packages of a worker, downloaded and unpacked; the next test has them from here
async def test_the_role_worker_answers_a_request_without_torch(installed, tmp_path, embedded_bootstrap):
    bin_folder = await asyncio.to_thread(installed, "[worker]")
    without_torch = await asyncio.to_thread(
        run, bin_folder / "python", "-c", "import importlib.util as u; print(u.find_spec('torch'))", folder=tmp_path
    )
    assert without_torch.stdout == "None\n"
    await answers(bin_folder / "headrace", tmp_path, embedded_bootstrap)


@pytest.mark.slow  # an environment of its own, whose kernels are compiled
async def test_a_worker_needs_no_package_that_its_role_does_not_name(built, tmp_path, embedded_bootstrap):
    python = await asyncio.to_thread(with_packages_of, "worker", built, tmp_path)
    without_torch = await asyncio.to_thread(run, python, "-c", "import torch", folder=tmp_path)
    assert "import of torch halted" in without_torch.stderr
    await answers(python.with_name("headrace"), tmp_path, embedded_bootstrap)


def with_packages_of(role: str, built: Path, folder: Path) -> Path:
    """The python of an environment that has the wheel, and of this environment's packages those that ``role`` names."""
    environment = folder / "environment"
    made = run(sys.executable, "-m", "venv", "--without-pip", environment, folder=folder)
    assert made.returncode == 0, made.stderr
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(environment)}))
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)  # noqa: S202 - built above
    (metadata,) = packages.glob("headrace-*.dist-info")
    named = needed_by(importlib.metadata.Distribution.at(metadata).requires or (), role)
    others = sorted(
        module
        for module, owners in importlib.metadata.packages_distributions().items()
        if not named & {canonicalize_name(owner) for owner in owners} and not module.startswith("headrace")
    )
    here = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "here.pth").write_text("\n".join(here))
    (packages / "sitecustomize.py").write_text(f"import sys\n\nsys.modules.update(dict.fromkeys({others!r}))\n")
    program = environment / "bin" / "headrace"
    program.write_text(
        f"#!{environment}/bin/python\nimport sys\nfrom headrace.__main__ import main\nsys.exit(main())\n"
    )
    program.chmod(0o755)
    return environment / "bin" / "python"


def needed_by(requirements: Iterable[str], role: str) -> set[str]:
    """The names of all packages that ``requirements`` bring with the extra ``role``, as they are installed here."""
    found: set[tuple[str, ...]] = set()
    waiting = [(Requirement(one), role) for one in requirements]
    while waiting:
        one, extra = waiting.pop()
        if one.marker is not None and not one.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(one.name)
        if (name, *sorted(one.extras)) in found:
            continue
        found.add((name, *sorted(one.extras)))
        below = importlib.metadata.requires(one.name) or ()
        waiting += [(Requirement(text), own) for text in below for own in (*one.extras, "")]
    return {name for name, *_ in found}


async def answers(headrace: Path, folder: Path, bootstrap: str) -> None:
    """A worker by the program ``headrace`` answers a request, and ends in order."""
    random_version(3, folder / "model.safetensors")
    place = OwnTopics(bootstrap, folder / "model.safetensors", folder, embedded=True)
    applied = await asyncio.to_thread(run, headrace, *place.at, "topics", "apply", folder=folder)
    assert applied.returncode == 0, applied.stderr
    with place.log.open("wb") as log:
        worker = await asyncio.create_subprocess_exec(headrace, *place.command, stderr=log, cwd=folder)
    try:

        def alive() -> None:
            assert worker.returncode is None, place.log.read_text()

        await until(lambda: "partition.resumed" in place.log.read_text(), "the worker's start", LIMIT_S, alive)
        answered = await asyncio.to_thread(
            run, headrace, *place.at, "classify", "the good film", "--timeout", str(LIMIT_S), folder=folder
        )
        assert answered.returncode == 0, answered.stderr
        assert answered.stdout
    finally:
        if worker.returncode is None:
            worker.terminate()
        await worker.wait()
    assert worker.returncode == 0, place.log.read_text()
