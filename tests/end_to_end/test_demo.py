"""`headrace demo` whole, with a small data set: what it ends with, and that it leaves nothing running."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from headrace.kafka.aio import AioKafkaCluster
from headrace.kafka.settings import KafkaSettings
from headrace_schemas.topics import topics
from tests.support.demos import COLUMNS, audit, write_texts
from tests.support.random_versions import random_version
from tests.support.started_processes import StartedProcesses
from tests.support.waiting import until, within

LIMIT_S = 120.0
RATE, SECONDS = 100, 3
TRAINED_DEMO = Path(__file__).parents[1] / "support" / "trained_demo.py"
TEACHING_RATE = 20
TEACHING_LIMIT_S = 600.0

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "texts.jsonl"
    write_texts(path, 300)
    return path


class Demo:
    """A running demo; ``processes`` finds those that it has started, and itself."""

    def __init__(self, process: asyncio.subprocess.Process, mark: StartedProcesses, output: Path) -> None:
        self.process = process
        self.processes = mark.processes
        self._output = output

    def printed(self) -> str:
        return self._output.read_text()

    async def reached(self, moment: Callable[[Demo], bool]) -> None:
        await until(lambda: moment(self) or self.process.returncode is not None, LIMIT_S)
        assert self.process.returncode is None, self.printed()

    async def ended(self, limit_s: float = LIMIT_S) -> int:
        async with within(limit_s, "the end of the demo"):
            return await self.process.wait()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model for the demos in which the training is not what is tested."""
    path = tmp_path_factory.mktemp("trained") / "model.safetensors"
    random_version(3, path)
    return path


@pytest.fixture
async def start(data: Path, tmp_path: Path) -> AsyncIterator[Callable]:
    """Start a demo on the small data set; what a failed test leaves of it is killed.

    With ``model`` it takes that file, and no time for the training.
    """
    mark = StartedProcesses()
    folder = tmp_path / "temporary"
    folder.mkdir()

    @asynccontextmanager
    async def started(
        *settings: str,
        options: tuple[str, ...] = (),
        speed: tuple[str, ...] = ("--seconds", str(SECONDS), "--rate", str(RATE)),
        model: Path | None = None,
    ) -> AsyncIterator[Demo]:
        program = ("-m", "headrace") if model is None else (str(TRAINED_DEMO), str(model))
        output = tmp_path / "output"
        own = ("--data", str(data), *COLUMNS)
        with output.open("wb") as written:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, *program, *settings, "demo", *own, *speed, *options),
                env=mark.environ(XDG_CACHE_HOME=str(tmp_path / "cache"), TMPDIR=str(folder)),
                stdout=written,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield Demo(process, mark, output)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    return started


def starts(part: str) -> Callable[[Demo], bool]:
    return lambda demo: any(part in command for command in demo.processes().values())


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
    ("moment", "options", "trains"),
    [
        pytest.param(starts("tansu broker"), (), True, id="the broker starts"),
        pytest.param(lambda demo: "labels; left out:" in demo.printed(), (), True, id="training"),
        pytest.param(starts("worker --processes"), (), True, id="the workers' parent starts", marks=pytest.mark.slow),
        pytest.param(starts("--slot 1"), (), False, id="the workers start"),
        pytest.param(lambda demo: "Streaming" in demo.printed(), (), False, id="streaming"),
        pytest.param(starts(" rank "), ("--learning", "--embedded"), True, id="ranks train", marks=pytest.mark.slow),
    ],
)
async def test_ctrl_c_leaves_nothing_running(start, tmp_path, trained, moment, options, trains):
    async with start(options=options, model=None if trains else trained) as demo:
        await demo.reached(moment)
        # A terminal sends it to all processes in the foreground.
        os.killpg(demo.process.pid, signal.SIGINT)
        assert await demo.ended() == 130, demo.printed()
        assert demo.processes() == {}
    assert demo.printed().endswith("Stopped. Nothing is left running.\n")
    assert "Traceback" not in demo.printed()
    assert list((tmp_path / "temporary").glob("headrace-*")) == []


async def test_what_a_killed_demo_started_ends_by_itself(start, trained):
    async with start(model=trained) as demo:
        await demo.reached(lambda demo: "Streaming" in demo.printed())
        assert len(demo.processes()) > 3
        demo.process.kill()
        await until(lambda: not demo.processes(), LIMIT_S)


async def test_workers_that_end_by_themselves_end_the_demo_with_their_log(start, tmp_path, trained):
    def both_are_logged(_: Demo) -> bool:
        return any(
            '"event": "member.started", "slot": 1' in log.read_text()
            for log in (tmp_path / "temporary").glob("headrace-demo-*/workers.log")
        )

    async with start(model=trained) as demo:
        await demo.reached(both_are_logged)
        [parent] = [
            number
            for number, command in demo.processes().items()
            if "worker --processes 2" in command and "--slot" not in command
        ]
        os.kill(parent, signal.SIGKILL)
        assert await demo.ended() == 1
        assert "headrace: `headrace worker` ended by itself with exit code -9. The end of its log:" in demo.printed()
        assert '"event": "member.started", "slot": 1' in demo.printed()
        assert "Traceback" not in demo.printed()
        await until(lambda: not demo.processes(), LIMIT_S)


async def test_a_broken_data_file_is_explained_before_anything_starts(start, data):
    data.write_text("{}\n")
    async with start() as demo:
        assert await demo.ended() == 1
        assert "texts.jsonl line 1: has no 'body'" in demo.printed()
        assert "Traceback" not in demo.printed()


@pytest.mark.slow
@pytest.mark.parametrize("teacher", [(), ("--endpoint",)], ids=["encoder", "endpoint"])
async def test_a_teacher_makes_four_versions_under_a_stream_that_is_answered_once(start, tmp_path, teacher):
    async with start(options=("--teaching", *teacher), speed=("--rate", str(TEACHING_RATE))) as demo:
        code = await demo.ended(TEACHING_LIMIT_S)
    printed = demo.printed()
    assert code == 0, printed
    published, answered, lost, repeated = audit(printed)
    assert (answered, lost, repeated) == (published, 0, 0)
    learnt = re.findall(r"^Version (\d) of (\d+) labels of people and (\d+) of the teacher", printed, re.MULTILINE)
    assert [int(number) for number, _, _ in learnt] == [1, 2, 3, 4]
    assert len({people for _, people, _ in learnt}) == 1, "people labelled nothing more"
    from_teacher = [int(labels) for _, _, labels in learnt]
    assert from_teacher[0] == 0
    assert from_teacher == sorted(set(from_teacher))
    assert re.search(r"^the teacher: right on [\d.]+% of the [\d,]+ texts", printed, re.MULTILINE)
    assert ("was called" in printed) == bool(teacher)
    assert "\x1b" not in printed, "no terminal, so no escape sequences"
    assert demo.processes() == {}
    assert list((tmp_path / "temporary").glob("headrace-*")) == []


@pytest.mark.slow
async def test_ctrl_c_ends_trainer_labeller_and_workers_of_the_teaching_demo(start, tmp_path):
    async with start(options=("--teaching", "--endpoint"), speed=("--rate", str(TEACHING_RATE))) as demo:
        await demo.reached(lambda demo: "Version 1" in demo.printed())
        os.killpg(demo.process.pid, signal.SIGINT)
        assert await demo.ended() == 130, demo.printed()
        assert demo.processes() == {}
    assert demo.printed().endswith("Stopped. Nothing is left running.\n")
    assert "Traceback" not in demo.printed()
    assert list((tmp_path / "temporary").glob("headrace-*")) == []


@pytest.mark.apache
async def test_on_a_cluster_of_ones_own_the_topics_have_a_prefix_and_stay(start, apache_bootstrap, trained):
    async with start(options=("--bootstrap", apache_bootstrap), model=trained) as demo:
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
    assert names == {topic.name for topic in topics(prefix)}
    assert demo.processes() == {}
