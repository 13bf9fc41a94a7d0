"""Commands as a user without a home, who can't write the installation, as systemd and OpenShift run them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from headrace.kafka.brokers.maven import java_binary
from headrace.kafka.brokers.process import BrokerStartError
from headrace_load.waiting import slowness, until
from tests.support.nobody import NOBODY, WITHOUT_ENTRY, as_user, headrace_as
from tests.support.place import LIMIT_S, Place
from tests.support.random_versions import random_version

STRANGERS = pytest.mark.parametrize(
    ("user", "home"),
    [
        pytest.param(NOBODY, "/nonexistent", id="nobody without a home"),
        pytest.param(NOBODY, None, id="nobody without HOME"),
        pytest.param(WITHOUT_ENTRY, "/", id="an unknown user at home in /"),
        pytest.param(WITHOUT_ENTRY, None, id="an unknown user without HOME"),
    ],
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that anybody may write, as /tmp is. pytest's own lie where only root may enter."""
    with tempfile.TemporaryDirectory(prefix="headrace-test-") as made:
        folder = Path(made)
        folder.chmod(0o1777)
        yield folder


def outcome(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=4 * LIMIT_S * slowness()
    )


@asynccontextmanager
async def run(command: list[str], log: Path):
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(*command, stdout=file, stderr=file, cwd=log.parent)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


async def said(process: asyncio.subprocess.Process, log: Path, words: str) -> None:
    def check() -> None:
        assert process.returncode is None, log.read_text()

    await until(lambda: words in log.read_text(), f"{words!r} in {log}", LIMIT_S, check)


@STRANGERS
def test_kernels_are_compiled_by_a_user_without_a_home(folder, user, home):
    program = (
        "import sys; from headrace import logs; logs.configure(sys.stderr);"
        "from headrace.model.hashing import hash_text; print(hash_text.stats.cache_path)"
    )
    done = outcome(as_user(user, sys.executable, "-c", program, HOME=home, TMPDIR=str(folder)), folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{folder}/headrace-{user}/")
    assert not done.stderr


def test_kernels_are_compiled_in_memory_where_nothing_can_be_written_and_that_is_said_once(folder):
    program = (
        "import sys; from headrace import logs; logs.configure(sys.stderr);"
        "from headrace.model import hashing, lookup; print(hashing.hash_text.stats.cache_path)"
    )
    folder.chmod(0o755)
    done = outcome(as_user(NOBODY, sys.executable, "-c", program, HOME="/nonexistent", TMPDIR=str(folder)), folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "None\n"
    assert done.stderr.count("kernels.in_memory") == 1
    assert len(done.stderr.splitlines()) == 1


@STRANGERS
def test_a_version_is_trained_and_evaluated_without_a_home(folder, user, home):
    rows = "".join(
        f'{{"text": "{word} number {number}", "label": "{word}"}}\n' for number in range(40) for word in ("red", "blue")
    )
    (folder / "rows.jsonl").write_text(rows)
    given = {"HOME": home, "TMPDIR": str(folder)}
    trained = outcome(
        headrace_as(
            user, "train", "rows.jsonl", "--out", "model.safetensors", "--epochs", "2", "--budget", "0", **given
        ),
        folder,
    )
    assert trained.returncode == 0, trained.stderr
    assert "Traceback" not in trained.stderr
    evaluated = outcome(headrace_as(user, "evaluate", "model.safetensors", "rows.jsonl", **given), folder)
    assert evaluated.returncode == 0, evaluated.stderr


@STRANGERS
async def test_a_worker_and_a_trainer_run_without_a_home_and_clients_reach_them(folder, user, home, embedded_bootstrap):
    model = folder / "model.safetensors"
    random_version(3, model)
    model.chmod(0o644)
    place = Place(embedded_bootstrap, model, folder, embedded=True)
    place.apply()
    given = {"HOME": home, "TMPDIR": str(folder)}
    worker_log, trainer_log = folder / "worker.log", folder / "trainer.log"
    async with (
        run(headrace_as(user, *place.command, **given), worker_log) as worker,
        run(headrace_as(user, *place.at, "trainer", **given), trainer_log) as trainer,
    ):
        await said(worker, worker_log, "partition.resumed")
        await said(trainer, trainer_log, "labels.read")
        (folder / "texts.txt").write_text("one\ntwo\n")
        for command in (
            ("classify", "a text", "--timeout", "60"),
            ("publish", "texts.txt"),
            ("models", "publish", str(model)),
            ("models", "list"),
            ("topics", "describe"),
        ):
            done = await asyncio.to_thread(outcome, headrace_as(user, *place.at, *command, **given), folder)
            assert done.returncode == 0, (command, done.stderr)


async def test_the_embedded_broker_starts_without_a_home(folder):
    await _starts(headrace_as(NOBODY, "broker", HOME="/nonexistent", TMPDIR=str(folder)), folder)


@pytest.mark.apache
async def test_apache_kafka_starts_without_a_home(folder):
    try:
        java_binary()
    except BrokerStartError as error:
        pytest.skip(str(error))
    # Its jars were fetched by this user; whoever may read them there need not fetch them again.
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    command = headrace_as(
        NOBODY, "broker", "--kind", "apache", HOME="/nonexistent", TMPDIR=str(folder), XDG_CACHE_HOME=cache
    )
    await _starts(command, folder)


async def _starts(command: list[str], folder: Path) -> None:
    log = folder / "broker.log"
    async with run(command, log) as broker:
        await said(broker, log, "127.0.0.1:")
