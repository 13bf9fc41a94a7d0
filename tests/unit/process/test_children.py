"""Programs that are started: what is said of one that fails, and that nothing of it is left."""

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from headrace.process.children import ProgramError, child, headrace, output_of

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


async def test_a_program_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match="no-such-program can't be run"):
        async with child(("no-such-program",), log=tmp_path / "log"):
            pass


async def test_a_program_that_does_not_end_at_sigterm_is_killed(tmp_path: Path) -> None:
    async with child((sys.executable, "-c", STAYS), log=None, pipes=True, grace_s=0.1) as running:
        assert await asyncio.wait_for(running.output.readline(), 60) == b"ready\n"
        assert running.code is None
    assert running.code == -signal.SIGKILL
