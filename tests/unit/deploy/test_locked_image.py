"""The image's lock is whole: hashes for everything, and what pyproject.toml asks for."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]
CONTAINERS = ROOT / "deploy" / "containers"
CONTAINERFILE = (CONTAINERS / "Containerfile").read_text(encoding="utf-8")
IMAGE = {
    "python_version": "3.11",
    "python_full_version": "3.11.14",
    "sys_platform": "linux",
    "platform_system": "Linux",
}
LOCKS = {
    "requirements.lock": ("worker", "s3", "gateway", "tracing"),
    "cuda.lock": ("worker", "s3", "gateway", "tracing", "cuda", "train", "teach"),
}
"""The extras that each lock is of."""


def locked(name: str) -> dict[str, tuple[Requirement, list[str]]]:
    """Each package of a lock by its name, with the hashes of its files."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (CONTAINERS / name).read_text(encoding="utf-8"))
    found = {}
    for line in text.replace("\\\n", " ").splitlines():
        asked, *hashes = re.split(r"\s+--hash=", line.strip())
        requirement = Requirement(asked)
        found[canonicalize_name(requirement.name)] = (requirement, hashes)
    return found


def asked_of_the_image(extras: tuple[str, ...]) -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    written = project["dependencies"] + [one for extra in extras for one in project["optional-dependencies"][extra]]
    requirements = [Requirement(one) for one in written]
    return [one for one in requirements if one.name != "headrace" and (not one.marker or one.marker.evaluate(IMAGE))]


@pytest.mark.parametrize("name", [*LOCKS, "build.lock"])
def test_every_locked_package_has_one_version_and_hashes(name: str) -> None:
    packages = locked(name)
    assert packages
    for requirement, hashes in packages.values():
        assert [one.operator for one in requirement.specifier] == ["=="], requirement
        assert hashes, f"{requirement} has no hash: run make lock"
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in hashes), requirement


@pytest.mark.parametrize("name", LOCKS)
def test_the_lock_holds_what_the_extras_of_its_image_ask_for(name: str) -> None:
    packages = locked(name)
    asked = asked_of_the_image(LOCKS[name])
    assert {"numpy", "s3fs", "aiokafka", "uvloop", "starlette"} <= {one.name for one in asked}
    for one in asked:
        assert canonicalize_name(one.name) in packages, f"{one.name} is not locked: run make lock"
        version = next(iter(packages[canonicalize_name(one.name)][0].specifier)).version
        assert one.specifier.contains(version), f"{one} is asked for and {version} locked: run make lock"


def test_the_wheel_is_built_by_what_is_locked() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    packages = locked("build.lock")
    for one in map(Requirement, build):
        version = next(iter(packages[canonicalize_name(one.name)][0].specifier)).version
        assert one.specifier.contains(version), f"{one} is asked for and {version} locked: run make lock"


def test_the_locks_name_no_place_to_download_from() -> None:
    for name in (*LOCKS, "build.lock"):
        text = (CONTAINERS / name).read_text(encoding="utf-8")
        assert "://" not in text
        assert not re.search(r"(?m)^-", text)


def test_an_image_installs_nothing_that_is_not_locked() -> None:
    text = CONTAINERFILE.replace("\\\n", " ")
    installs = re.findall(r"pip install[^&\n]*", text)
    assert len(installs) == 1 + 2 * len(LOCKS)
    for one in installs:
        assert "--require-hashes" in one or ("--no-deps" in one and "--no-index" in one), one
    assert all("--no-build-isolation" in one for one in re.findall(r"pip wheel[^&\n]*", text))
    assert all(f"--requirement /locks/{name}" in text for name in (*LOCKS, "build.lock"))


def test_an_image_runs_as_a_user_without_rights_and_says_how_it_is() -> None:
    """Each of the last two stages is an image; Kubernetes wants the user as a number."""
    run, *images = [f"FROM {stage}" for stage in re.split(r"(?m)^FROM ", CONTAINERFILE) if " AS build" not in stage][1:]
    assert "HEALTHCHECK" in run
    assert "/healthz" in run
    assert [image.split()[3] for image in images] == ["cuda", "cpu"]
    assert all(re.findall(r"(?m)^USER (.*)$", image)[-1] == "10001" for image in images)


def test_the_build_is_given_every_file_that_it_copies() -> None:
    """What .dockerignore leaves out is not there for an engine, however it is tracked."""
    allowed = re.findall(r"(?m)^!(.*)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"))
    text = CONTAINERFILE.replace("\\\n", " ")
    copied = [one for line in re.findall(r"(?m)^COPY (?!--from)(.*) \S+$", text) for one in line.split()]
    copied += re.findall(r"type=bind,source=([^,]+)", text)
    assert len(copied) > 6
    for one in copied:
        assert (ROOT / one).exists(), one
        assert any(fnmatch(one, pattern) for pattern in allowed), f"{one} is ignored: add it to .dockerignore"
