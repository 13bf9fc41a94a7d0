"""Apache Kafka's jars: resolved once by Maven from pom.xml into the user's cache."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path

from headrace.kafka.brokers.process import BrokerStartError
from headrace.security.private_folder import needed_folder

KAFKA_VERSION = "4.3.1"
LEAST_JAVA = 17
RESOLVE_LIMIT_S = 600

_WITHOUT = "use the embedded broker (`headrace broker --kind embedded`, `headrace demo --learning --embedded`)"


def cache_directory(environ: Mapping[str, str]) -> Path:
    """Return where the jars are kept: headrace/kafka-VERSION in the user's cache, or where he can keep something.

    Raises NoFolderError where that is nowhere.
    """
    return needed_folder(f"kafka-{KAFKA_VERSION}", environ, filled=_complete)


def kafka_jars(directory: Path, tell: Callable[[str], None] = lambda _: None) -> Path:
    """Return ``directory``, filled with the jars; a call that finds them there runs no Maven.

    ``tell`` is told in words that Maven runs, which takes its time.
    Raises BrokerStartError when Maven is missing or fails.
    """
    if _complete(directory):
        return directory
    mvn = shutil.which("mvn")
    if mvn is None:
        raise BrokerStartError(
            f"Apache Kafka's jars are not in {directory} yet, and Maven, which fetches them once, is not installed. "
            "Install it (Debian and Ubuntu: apt install maven; macOS: brew install maven), "
            f"or {_WITHOUT}."
        )
    tell(f"Maven fetches Apache Kafka's jars into {directory}, once; that can take minutes")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="jars-", dir=directory.parent) as work:
        fresh = Path(work) / "jars"
        fresh.mkdir()
        (fresh / "pom.xml").write_bytes(_pom())
        _run_maven(mvn, fresh, [] if _can_keep_a_repository() else [f"-Dmaven.repo.local={work}/repository"])
        # Renamed when complete, so neither a broken run nor another process beside us leaves half a set.
        if directory.exists():
            directory.rename(Path(work) / "outdated")
        fresh.rename(directory)
    return directory


def java_binary() -> str:
    """Return the java program to use. Raises BrokerStartError when there is none, or one older than 17."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if java is None or not Path(java).is_file():
        raise BrokerStartError(
            f"Apache Kafka needs Java {LEAST_JAVA} or later, and there is none ({java or 'java is not on the PATH'}). "
            "Install one (Debian and Ubuntu: apt install openjdk-17-jre-headless; macOS: brew install openjdk), "
            f"or {_WITHOUT}."
        )
    printed = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)  # noqa: S603
    major = java_major(printed.stderr)
    if major is None or major < LEAST_JAVA:
        raise BrokerStartError(
            f"Apache Kafka needs Java {LEAST_JAVA} or later, but {java} says: {printed.stderr.strip()}. "
            "Install a later one and let JAVA_HOME point at it."
        )
    return java


def java_major(printed: str) -> int | None:
    """Return the major version in what ``java -version`` prints, None when it is not to be found."""
    found = re.search(r'version "(?:1\.)?(\d+)', printed)
    return int(found.group(1)) if found else None


def _pom() -> bytes:
    return resources.files("headrace.kafka.brokers").joinpath("pom.xml").read_bytes()


def _complete(directory: Path) -> bool:
    """Whether the jars of our pom.xml are there: it is put beside them when they are."""
    try:
        return (directory / "pom.xml").read_bytes() == _pom()
    except OSError:
        return False


def _can_keep_a_repository() -> bool:
    """Whether Maven can write its repository. It lies in the home that the system knows of, whatever HOME says."""
    try:
        repository = Path(pwd.getpwuid(os.geteuid()).pw_dir) / ".m2" / "repository"
    except KeyError:
        return False
    there = next(level for level in (repository, *repository.parents) if os.path.exists(level))  # noqa: PTH110 - of what can't be looked at Path.exists raises
    return os.access(there, os.W_OK)


def _run_maven(mvn: str, directory: Path, more: Sequence[str]) -> None:
    command = [
        *(mvn, "--quiet", "--batch-mode", "--file", str(directory / "pom.xml")),
        *("dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={directory}", *more),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=RESOLVE_LIMIT_S)  # noqa: S603
    except subprocess.TimeoutExpired as error:
        raise BrokerStartError(f"Maven did not fetch Kafka's jars within {RESOLVE_LIMIT_S} s.") from error
    if done.returncode != 0 or not list(directory.glob("kafka_*.jar")):
        raise BrokerStartError(
            f"Maven could not fetch Kafka's jars (exit code {done.returncode}). Is its repository reachable from here? "
            f"It said:\n{(done.stdout + done.stderr).strip()}"
        )
