"""`headrace demo` whole, with a small data set: what it ends with, and that it leaves nothing running."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from headrace.kafka.aio import AioKafkaCluster
from headrace.kafka.settings import KafkaSettings
from tests.support.waiting import until

LIMIT_S = 120.0
RATE, SECONDS = 100, 3
WORDS = {
    "sport": ["goal", "match", "team", "player", "score", "win", "league", "cup", "coach", "ball"],
    "money": ["bank", "rate", "tax", "market", "share", "profit", "firm", "price", "stock", "trade"],
}
COMMON = ["the", "a", "of", "and", "in", "to", "on", "with", "for", "by", "after", "new", "old", "big"]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """300 short texts of two classes, each of two paragraphs and of its own."""
    chance = random.Random(1)

    def body(number: int, label: str) -> str:
        words = [chance.choice(WORDS[label] if chance.random() < 0.5 else COMMON) for _ in range(20)]
        return f"{' '.join(words)}\n{chance.choice(WORDS[label])} {number}"

    labels = [("sport", "money")[number % 2] for number in range(300)]
    path = tmp_path / "texts.jsonl"
    rows = [{"body": body(number, label), "kind": label} for number, label in enumerate(labels)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


class Demo:
    """A running demo; a variable in the environment of all that it starts tells which processes are its own."""

    def __init__(self, process: asyncio.subprocess.Process, mark: bytes, output: Path) -> None:
        self.process = process
        self._mark = mark
        self._output = output

    def printed(self) -> str:
        return self._output.read_text()

    def processes(self) -> dict[int, str]:
        """The command lines of the processes that live, by their ids."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self._mark in (folder / "environ").read_bytes().split(b"\0"):
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:  # it has ended, or is another user's
                continue
        return found

    async def reached(self, moment: Callable[[Demo], bool]) -> None:
        await until(lambda: moment(self) or self.process.returncode is not None, LIMIT_S)
        assert self.process.returncode is None, self.printed()

    async def ended(self) -> int:
        return await asyncio.wait_for(self.process.wait(), LIMIT_S)


@pytest.fixture
async def start(data: Path, tmp_path: Path) -> AsyncIterator[Callable]:
    """Start a demo on the small data set; what a failed test leaves of it is killed."""
    mark = f"DEMO_UNDER_TEST={uuid.uuid4()}"
    name, _, value = mark.partition("=")
    folder = tmp_path / "temporary"
    folder.mkdir()

    @asynccontextmanager
    async def started(*settings: str, options: tuple[str, ...] = ()) -> AsyncIterator[Demo]:
        output = tmp_path / "output"
        own = ("--data", str(data), "--text-column", "body", "--label-column", "kind")
        speed = ("--seconds", str(SECONDS), "--rate", str(RATE))
        with output.open("wb") as written:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "headrace", *settings, "demo", *own, *speed, *options),
                env={**os.environ, name: value, "XDG_CACHE_HOME": str(tmp_path / "cache"), "TMPDIR": str(folder)},
                stdout=written,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield Demo(process, mark.encode(), output)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    return started


def starts(part: str) -> Callable[[Demo], bool]:
    return lambda demo: any(part in command for command in demo.processes().values())


def audit(printed: str) -> tuple[int, ...]:
    found = re.search(
        r"^audit: published ([\d,]+), answered ([\d,]+), lost ([\d,]+), repeated ([\d,]+)$", printed, re.MULTILINE
    )
    assert found, printed
    return tuple(int(number.replace(",", "")) for number in found.groups())


async def test_the_demo_answers_every_text_once_and_ends_clean(start, tmp_path):
    async with start() as demo:
        code = await demo.ended()
    printed = demo.printed()
    assert code == 0, printed
    held_out = int(re.search(r"Publishing (\d+) held-out texts", printed)[1])
    assert audit(printed) == (held_out + RATE * SECONDS, held_out + RATE * SECONDS, 0, 0)
    accuracy = re.search(r"accuracy on the held-out texts: ([\d.]+)% \((\d+) of (\d+)\)", printed)
    assert int(accuracy[3]) == held_out
    assert float(accuracy[1]) > 90
    assert re.search(r"latency of the stream: p50 [\d.,]+ ms, p99 [\d.,]+ ms", printed)
    assert "\x1b" not in printed, "no terminal, so no escape sequences"
    assert demo.processes() == {}
    assert list((tmp_path / "temporary").glob("headrace-*")) == []
    assert (tmp_path / "cache" / "headrace" / "demo" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(starts("tansu broker"), id="the broker starts"),
        pytest.param(lambda demo: "training on" in demo.printed(), id="training"),
        pytest.param(starts("worker --processes"), id="the workers' parent starts"),
        pytest.param(starts("--slot 1"), id="the workers start"),
        pytest.param(lambda demo: "Streaming" in demo.printed(), id="streaming"),
    ],
)
async def test_ctrl_c_leaves_nothing_running(start, tmp_path, moment):
    async with start() as demo:
        await demo.reached(moment)
        # A terminal sends it to all processes in the foreground.
        os.killpg(demo.process.pid, signal.SIGINT)
        assert await demo.ended() == 130, demo.printed()
        assert demo.processes() == {}
    assert demo.printed().endswith("Stopped. Nothing is left running.\n")
    assert "Traceback" not in demo.printed()
    assert list((tmp_path / "temporary").glob("headrace-*")) == []


async def test_what_a_killed_demo_started_ends_by_itself(start):
    async with start() as demo:
        await demo.reached(lambda demo: "Streaming" in demo.printed())
        assert len(demo.processes()) > 3
        demo.process.kill()
        await until(lambda: not demo.processes(), LIMIT_S)


async def test_workers_that_end_by_themselves_end_the_demo_with_their_log(start, tmp_path):
    def both_are_logged(_: Demo) -> bool:
        return any(
            '"event": "member.started", "slot": 1' in log.read_text()
            for log in (tmp_path / "temporary").glob("headrace-demo-*/workers.log")
        )

    async with start() as demo:
        await demo.reached(both_are_logged)
        [parent] = [
            number
            for number, command in demo.processes().items()
            if "worker --processes 2" in command and "--slot" not in command
        ]
        os.kill(parent, signal.SIGKILL)
        assert await demo.ended() == 1
        assert "headrace: `headrace worker` ended by itself (exit code -9). The end of its log:" in demo.printed()
        assert '"event": "member.started", "slot": 1' in demo.printed()
        assert "Traceback" not in demo.printed()
        await until(lambda: not demo.processes(), LIMIT_S)


async def test_a_broken_data_file_is_explained_before_anything_starts(start, data):
    data.write_text("{}\n")
    async with start() as demo:
        assert await demo.ended() == 1
        assert "texts.jsonl line 1: has no 'body'" in demo.printed()
        assert "Traceback" not in demo.printed()


@pytest.mark.apache
async def test_on_a_cluster_of_ones_own_the_topics_have_a_prefix_and_stay(start, apache_bootstrap):
    async with start(options=("--bootstrap", apache_bootstrap)) as demo:
        code = await demo.ended()
    printed = demo.printed()
    assert code == 0, printed
    assert audit(printed)[2:] == (0, 0)
    prefix = re.search(r"The topics (demo-[0-9a-f]{6}-)classify\.\* stay on " + re.escape(apache_bootstrap), printed)[1]
    admin = AioKafkaCluster(KafkaSettings(bootstrap=apache_bootstrap)).admin()
    await admin.start()
    try:
        names = {name for name in await admin.describe_topics() if name.startswith(prefix)}
    finally:
        await admin.stop()
    assert names == {
        prefix + f"classify.{name}" for name in ("requests", "results", "dead-letters", "labels", "models")
    }
    assert demo.processes() == {}
