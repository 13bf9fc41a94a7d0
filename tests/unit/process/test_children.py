"""Programs that are started: what is said of one that fails, and that nothing of it is left."""

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from headrace.core.errors import InterruptedChildError
from headrace.process import lifecycle
from headrace.process.children import ProgramError, child, headrace, output_of
from headrace.process.lifecycle import until_stopped

ENDS = "import sys; print('the last word'); sys.exit(7)"
STAYS = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
)


async def test_a_command_that_fails_is_told_with_what_it_printed(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match=r"`headrace no-such` ended with exit code 2; .*\n(.|\n)*No such command"):
        await output_of(headrace("no-such"), name="`headrace no-such`", folder=tmp_path)


async def test_a_program_that_ends_by_itself_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    command = (sys.executable, "-c", ENDS)
    async with child(command, name="the program", log=tmp_path / "log") as running:
        with pytest.raises(ProgramError, match=r"the program ended by itself with exit code 7\.(.|\n)*the last word"):
            await running.watch()
        with pytest.raises(ProgramError, match="exit code 7"):
            running.check()


async def test_a_program_has_printed_only_what_it_printed_itself(tmp_path: Path) -> None:
    """Or whoever looks there for its port would find that of an earlier run."""
    log = tmp_path / "log"
    log.write_bytes(b"listening on port 1\n")
    async with child((sys.executable, "-c", ENDS), name="the program", log=log) as running:
        await running.process.wait()
        assert running.printed() == b"the last word\n"
        assert running.log_tail() == "the last word"
    assert log.read_bytes() == b"listening on port 1\nthe last word\n"


async def test_a_program_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match="no-such-program can't be run"):
        async with child(("no-such-program",), log=tmp_path / "log"):
            pass


async def test_a_program_that_does_not_end_at_sigterm_is_killed(tmp_path: Path) -> None:
    async with child((sys.executable, "-c", STAYS), log=None, pipes=True, grace_s=0.1) as running:
        assert await asyncio.wait_for(running.output.readline(), 60) == b"ready\n"
        assert running.code is None
    assert running.code == -signal.SIGKILL


INTERRUPTED = "import os, signal; signal.signal(signal.SIGINT, signal.SIG_DFL); os.kill(os.getpid(), signal.SIGINT)"


async def test_a_program_that_ctrl_c_hits_before_it_has_its_session_is_told_from_one_that_fails(tmp_path: Path) -> None:
    command = (sys.executable, "-c", INTERRUPTED)
    async with child(command, name="the program", log=tmp_path / "log") as running:
        with pytest.raises(InterruptedChildError, match=r"the program ended by itself with exit code -2\."):
            await running.watch()
    with pytest.raises(InterruptedChildError, match=r"the program ended with exit code -2"):
        await output_of(command, name="the program")


async def interrupted() -> None:
    raise InterruptedChildError("`headrace train` ended with exit code -2")


async def test_a_child_that_ctrl_c_ended_is_no_failure_of_a_parent_that_it_stops() -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(until_stopped(interrupted(), stop))
    # The child's end is noticed first.
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    stop.set()
    assert await running is None
    assert await until_stopped(interrupted(), stop) is None


async def test_a_child_that_was_interrupted_alone_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "CTRL_C_S", 0.0)
    with pytest.raises(InterruptedChildError, match="exit code -2"):
        await until_stopped(interrupted(), asyncio.Event())


async def test_another_failure_is_one_beside_a_stop_too() -> None:
    async def fails() -> None:
        raise ProgramError("the workers are gone")

    stop = asyncio.Event()
    stop.set()
    with pytest.raises(ProgramError, match="the workers are gone"):
        await until_stopped(fails(), stop)
