"""Real child processes: what happens to them when their parent ends is the kernel's, not a mock's."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.process.child_process import CANT_RUN, ending_with_parent
from tests.support.waiting import until

ROOT = Path(__file__).parents[3]
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent ended")

# Says who it is when it runs, and how it ended when it is asked to end.
CHILD = """
import pathlib, signal, sys, time
def end(number, frame):
    pathlib.Path(sys.argv[1], "asked").touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
pathlib.Path(sys.argv[1], "runs").touch()
time.sleep(60)
"""

PARENT = """
import subprocess, sys, time
from headrace.process.child_process import ending_with_parent
subprocess.Popen(ending_with_parent([sys.executable, "-c", sys.argv[2], sys.argv[1]]), start_new_session=True)
time.sleep(60)
"""


def test_no_child_runs_python_between_fork_and_exec() -> None:
    """In a program with threads that can stand still for ever: a lock that another thread held stays held."""
    forbidden = "preexec" + "_fn"
    sources = [path for top in ("services", "load") for path in (ROOT / top).rglob("*.py")]
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sources
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if f"{forbidden}=" in line
    ]
    assert sources
    assert found == []


@ON_LINUX
async def test_a_child_is_asked_to_end_when_its_parent_is_killed(tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", PARENT, str(tmp_path), CHILD)
    try:
        await until((tmp_path / "runs").exists)
    finally:
        parent.kill()
        await parent.wait()
    await until((tmp_path / "asked").exists)


@ON_LINUX
def test_a_child_whose_parent_ended_before_it_could_ask_does_not_run_its_command(tmp_path: Path) -> None:
    touch = [sys.executable, "-c", f"open({str(tmp_path / 'ran')!r}, 'w')"]
    command = ending_with_parent(touch)
    assert subprocess.run(command, check=False).returncode == 0
    (tmp_path / "ran").unlink()
    command[command.index(str(os.getpid()))] = str(2**22 + 1)  # no process has this id
    assert subprocess.run(command, check=False).returncode == 128 + signal.SIGTERM
    assert not (tmp_path / "ran").exists()


@ON_LINUX
def test_the_command_gets_its_environment_its_folder_and_the_usual_signals(tmp_path: Path) -> None:
    source = "import os; print(os.environ['GIVEN'], os.getcwd())"
    done = subprocess.run(
        ending_with_parent([sys.executable, "-c", source]),
        env={"GIVEN": "one"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["one", str(tmp_path.resolve())]
    # A writer whose reader has gone ends by SIGPIPE, as it would without us.
    ignored = subprocess.run(
        ending_with_parent(["grep", "SigIgn", "/proc/self/status"]), capture_output=True, text=True, check=True
    )
    assert not int(ignored.stdout.split()[1], 16) & (1 << (signal.SIGPIPE - 1))


@ON_LINUX
def test_a_program_that_is_not_there_is_said_where_the_child_is_started(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no-such-program is no program that can be run here"):
        ending_with_parent(["no-such-program"])
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF and no more")
    broken.chmod(0o755)
    done = subprocess.run(ending_with_parent([str(broken)]), capture_output=True, text=True, check=False)
    assert done.returncode == CANT_RUN
    assert f"{broken} can't be run" in done.stderr
