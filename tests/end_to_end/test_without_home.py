"""Commands as a user without a home, who can't write the installation, as systemd and OpenShift run them.

Each case starts a command and compiles; one of each kind runs by default, and the others are slow.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from headrace.kafka.brokers import BrokerStartError, java_binary
from headrace.model import compiling
from headrace_load.processes import slowness, until
from tests.end_to_end.test_load_commands import WORKLOAD
from tests.support.demos import COLUMNS, audit, write_texts
from tests.support.nobody import NOBODY, WITHOUT_ENTRY, as_user, headrace_as, needs_children, sealed
from tests.support.own_topics import LIMIT_S, OwnTopics
from tests.support.random_versions import random_version

STRANGERS = pytest.mark.parametrize(
    ("user", "home"),
    [
        pytest.param(WITHOUT_ENTRY, None, id="an unknown user without HOME"),
        pytest.param(NOBODY, "/nonexistent", id="nobody without a home", marks=pytest.mark.slow),
        pytest.param(NOBODY, None, id="nobody without HOME", marks=pytest.mark.slow),
        pytest.param(WITHOUT_ENTRY, "/", id="an unknown user at home in /", marks=pytest.mark.slow),
    ],
)


@pytest.fixture(scope="module")
def temporary() -> Iterator[Path]:
    """A folder that anybody may write, as /tmp is. pytest's own lie where only root may enter."""
    with tempfile.TemporaryDirectory(prefix="headrace-test-") as made:
        folder = Path(made)
        folder.chmod(0o1777)
        yield folder


@pytest.fixture
def folder(temporary) -> Iterator[Path]:
    """A folder of the test's own in it; what is compiled is kept beside it, for the other tests' users."""
    with tempfile.TemporaryDirectory(dir=temporary) as made:
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


KERNELS = (
    "import sys; from headrace.process import logs; logs.configure(sys.stderr);"
    "from headrace.model import lookup, utf8; import numpy as np; assert utf8.is_utf8(np.zeros(1, np.uint8), 0, 1);"
    "print(utf8.is_utf8.stats.cache_path)"
)


@STRANGERS
def test_kernels_are_kept_beside_what_is_temporary(folder, user, home):
    done = outcome(as_user(user, sys.executable, "-c", KERNELS, HOME=home, TMPDIR=str(folder)), folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{folder}/headrace-{user}/")
    assert list(Path(done.stdout.strip()).glob("utf8.*.nbc"))
    assert not done.stderr


def give_kernels(user: int, temporary: Path) -> None:
    """Put what is compiled beside the sources where ``user`` keeps it, as after an earlier start of his."""
    name = f"kernels-{compiling.sources_digest()}"
    own, beside = temporary / f"headrace-{user}", Path(compiling.__file__).parent / "__pycache__" / name
    if beside.is_dir() and not own.exists():
        # Other tests compile beside us: what has a name for a moment only is left out.
        shutil.copytree(beside, own / name, ignore=shutil.ignore_patterns("*.tmp.*"))
        for path in (own, *own.rglob("*")):
            path.chmod(0o700)
            os.chown(path, user, 0 if user == WITHOUT_ENTRY else user)


def test_kernels_are_compiled_in_memory_where_nothing_can_be_written_and_that_is_said_once(folder):
    done = outcome(sealed(as_user(NOBODY, sys.executable, "-c", KERNELS, HOME="/nonexistent")), folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "None\n"
    assert done.stderr.count("kernels.in_memory") == 1
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "setting"),
    [
        pytest.param(("broker",), "TMPDIR", id="broker"),
        pytest.param(("broker", "--kind", "apache"), "XDG_CACHE_HOME", id="Apache Kafka", marks=pytest.mark.apache),
        pytest.param(("demo", "--data", "rows.jsonl"), "XDG_CACHE_HOME", id="demo"),
        pytest.param(("train", "rows.jsonl", "--out", "model"), "TMPDIR", id="train", marks=pytest.mark.slow),
        pytest.param(("trainer",), "TMPDIR", id="trainer", marks=pytest.mark.slow),
    ],
)
def test_what_needs_a_place_says_which_setting_gives_it_one_where_nothing_can_be_written(folder, arguments, setting):
    (folder / "rows.jsonl").write_text('{"text": "one", "label": "a"}\n{"text": "two", "label": "b"}\n' * 20)
    done = outcome(sealed(headrace_as(NOBODY, *arguments, HOME="/nonexistent")), folder)
    assert done.returncode == 1
    [line] = [line for line in done.stderr.splitlines() if "kernels.in_memory" not in line]
    assert f"Set {setting} to a folder" in line


# It compiles all kernels in memory twice, two minutes; that worker and trainer start so is tested below each time.
@pytest.mark.slow
@STRANGERS
def test_a_version_is_trained_and_evaluated_without_a_home(folder, user, home):
    rows = "".join(
        f'{{"text": "{word} number {number}", "label": "{word}"}}\n' for number in range(40) for word in ("red", "blue")
    )
    (folder / "rows.jsonl").write_text(rows)
    given = {"HOME": home, "TMPDIR": str(folder.parent)}
    training = ("train", "rows.jsonl", "--out", "model.safetensors", "--epochs", "2", "--budget", "0")
    trained = outcome(sealed(headrace_as(user, *training, **given), folder.parent), folder)
    assert trained.returncode == 0, trained.stderr
    assert "Traceback" not in trained.stderr
    assert "atplotlib" not in trained.stderr
    evaluated = outcome(headrace_as(user, "evaluate", "model.safetensors", "rows.jsonl", **given), folder)
    assert evaluated.returncode == 0, evaluated.stderr


@STRANGERS
async def test_a_worker_and_a_trainer_run_without_a_home_and_clients_reach_them(folder, user, home, embedded_bootstrap):
    model = folder / "model.safetensors"
    random_version(3, model)
    model.chmod(0o644)
    place = OwnTopics(embedded_bootstrap, model, folder, embedded=True)
    place.apply()
    give_kernels(user, folder.parent)
    given = {"HOME": home, "TMPDIR": str(folder.parent)}
    worker_log, trainer_log = folder / "worker.log", folder / "trainer.log"
    async with (
        run(sealed(headrace_as(user, *place.command, **given), folder.parent), worker_log) as worker,
        run(sealed(headrace_as(user, *place.at, "trainer", **given), folder.parent), trainer_log) as trainer,
    ):
        await said(worker, worker_log, "partition.resumed")
        await said(trainer, trainer_log, "labels.read")
        (folder / "texts.txt").write_text("one\ntwo\n")
        for command in (
            ("classify", "a text", "--timeout", "60"),
            ("publish", "texts.txt"),
            ("models", "publish", str(model)),
            ("models", "list"),
        ):
            done = await asyncio.to_thread(outcome, headrace_as(user, *place.at, *command, **given), folder)
            assert done.returncode == 0, (command, done.stderr)


@pytest.mark.slow
@pytest.mark.apache
async def test_a_worker_that_can_write_nothing_answers_as_a_member_without_a_number(folder, apache_bootstrap):
    model = folder / "model.safetensors"
    random_version(3, model)
    model.chmod(0o644)
    place = OwnTopics(apache_bootstrap, model, folder, embedded=False)
    place.apply()
    async with run(sealed(headrace_as(NOBODY, *place.command, HOME="/nonexistent")), folder / "log") as worker:
        await said(worker, folder / "log", "partition.resumed")
    assert (folder / "log").read_text().count("member.dynamic") == 1


async def test_the_embedded_broker_starts_without_a_home(folder):
    command = headrace_as(NOBODY, "broker", HOME="/nonexistent", TMPDIR=str(folder))
    async with run(sealed(command, folder), folder / "broker.log") as broker:
        await said(broker, folder / "broker.log", "127.0.0.1:")


@pytest.mark.slow
@pytest.mark.apache
async def test_apache_kafka_starts_without_a_home(folder):
    try:
        java_binary()
    except BrokerStartError as error:
        pytest.skip(str(error))
    # Its jars were fetched by this user; whoever may read them there need not fetch them again.
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    given = {"HOME": "/nonexistent", "TMPDIR": str(folder), "XDG_CACHE_HOME": cache}
    command = headrace_as(NOBODY, "broker", "--kind", "apache", **given)
    async with run(sealed(command, folder), folder / "broker.log") as broker:
        await said(broker, folder / "broker.log", "127.0.0.1:")


@pytest.mark.slow
def test_the_demo_is_shown_without_a_home_and_keeps_its_model_beside_what_is_temporary(folder):
    needs_children(NOBODY)
    write_texts(folder / "texts.jsonl", 300)
    asked = ("--data", "texts.jsonl", *COLUMNS, "--seconds", "2", "--rate", "50")
    command = headrace_as(NOBODY, "demo", *asked, HOME="/nonexistent", TMPDIR=str(folder))
    done = outcome(sealed(command, folder), folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert audit(done.stdout)[2:] == (0, 0)
    assert (folder / f"headrace-{NOBODY}" / "demo" / "model.safetensors").is_file()
    assert f"cache.elsewhere folder={folder}" in done.stderr


@pytest.mark.slow
def test_a_load_is_run_and_drawn_without_a_home(folder):
    needs_children(NOBODY)
    random_version(3, folder / "model.safetensors")
    (folder / "model.safetensors").chmod(0o644)
    (folder / "w.toml").write_text(WORKLOAD)
    (folder / "worker.toml").write_text('name = "worker"\n[worker]\nmodel = "model.safetensors"\n')
    program = str(Path(sys.executable).with_name("headrace-load"))
    asked = ("run", "w.toml", "--contender", "worker.toml", "--broker", "embedded", "--out", "out")
    command = as_user(NOBODY, program, *asked, HOME="/nonexistent", TMPDIR=str(folder))
    done = outcome(sealed(command, folder), folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "atplotlib" not in done.stderr
    assert (folder / "out" / "latency.png").is_file()
