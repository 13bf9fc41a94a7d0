"""Real child processes, tiny ones: signals and restarts are the kernel's, not a mock's."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headrace.core.clock import SystemClock
from headrace.core.errors import NoProgramError, with_notes
from headrace.process.lifecycle import EXIT_REFUSED, EXIT_UNDRAINED, RestartPolicy, supervise
from tests.support.waiting import until

LIMIT_S = 20.0
QUICK = RestartPolicy(first=0.01, longest=0.05, healthy=60.0)

# Each child says in a file of its own that it runs.
WAITS = """
import os, pathlib, sys, time
pathlib.Path(sys.argv[1], f"{sys.argv[2]}-{os.getpid()}").touch()
time.sleep(60)
"""

DRAINS = """
import asyncio, pathlib, sys, time
from headrace.process.lifecycle import run

async def main(stop):
    pathlib.Path(sys.argv[1], "ready").touch()
    await stop.wait()
    await asyncio.sleep(float(sys.argv[2]))
    return 7

sys.exit(run(main, drain_s=0.5))
"""

PARENT = """
import sys
from headrace.core.clock import SystemClock
from headrace.process.lifecycle import run
from headrace.process.lifecycle import supervise
from tests.support.waiting import until

command = lambda slot: [sys.executable, "-c", sys.argv[2], sys.argv[1], str(slot)]
sys.exit(run(lambda stop: supervise(command, 2, stop=stop, clock=SystemClock(), grace_s=5), drain_s=10))
"""


def code(source: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", source, *arguments]


def started(folder: Path, slot: int | str = "*") -> list[int]:
    return [int(path.name.partition("-")[2]) for path in folder.glob(f"{slot}-*")]


def runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def supervised(source: str, folder: Path, stop: asyncio.Event, *, grace_s: float = 5.0) -> int:
    return await supervise(
        lambda slot: code(source, str(folder), str(slot)),
        2,
        stop=stop,
        clock=SystemClock(),
        grace_s=grace_s,
        policy=QUICK,
    )


async def test_a_member_that_is_killed_is_started_again_in_its_slot(tmp_path: Path) -> None:
    stop = asyncio.Event()
    parent = asyncio.create_task(supervised(WAITS, tmp_path, stop))
    await until(lambda: len(started(tmp_path)) == 2)
    os.kill(started(tmp_path, 1)[0], signal.SIGKILL)
    await until(lambda: len(started(tmp_path, 1)) == 2)
    assert len(started(tmp_path, 0)) == 1
    stop.set()
    assert await parent == 0
    assert not any(runs(pid) for pid in started(tmp_path))


async def test_members_that_ctrl_c_ended_beside_their_parent_are_no_fault_of_it(tmp_path: Path) -> None:
    """It hits a member that has no session of its own yet."""
    interrupted = "import os, signal\nsignal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))\n"
    default = "signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
    stop = asyncio.Event()
    parent = asyncio.create_task(supervised(interrupted + default + WAITS, tmp_path, stop))
    await until(lambda: len(started(tmp_path)) == 2)
    stop.set()
    assert await parent == 0


async def test_a_member_that_can_not_go_on_ends_them_all_with_its_code(tmp_path: Path) -> None:
    refuses = f"import sys\nif sys.argv[2] == '0': sys.exit({EXIT_REFUSED})\n{WAITS}"
    assert await supervised(refuses, tmp_path, asyncio.Event()) == EXIT_REFUSED
    assert not any(runs(pid) for pid in started(tmp_path))


@pytest.mark.parametrize("there", [True, False])
async def test_a_program_that_can_not_be_run_is_one_error_in_words(tmp_path: Path, there: bool) -> None:
    program = tmp_path / "program"
    if there:
        program.write_bytes(b"")
    with pytest.raises(
        NoProgramError, match=f"^{program} is no program that can be run here; this user has to"
    ) as told:
        await supervise(lambda _: [str(program)], 2, stop=asyncio.Event(), clock=SystemClock(), grace_s=1)
    assert told.value.exit_code == 2
    assert "\n" not in with_notes(told.value)


async def test_a_start_that_the_system_refuses_for_now_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, refusals = asyncio.create_subprocess_exec, iter([OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))])

    async def refusing(*command, **options):
        for refusal in refusals:
            raise refusal
        return await start(*command, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refusing)
    refuses = code(f"import sys; sys.exit({EXIT_REFUSED})")
    stop, clock = asyncio.Event(), SystemClock()
    ended = await supervise(lambda _: refuses, 1, stop=stop, clock=clock, grace_s=5, policy=QUICK)
    assert (ended, list(refusals)) == (EXIT_REFUSED, [])


async def test_a_member_that_ignores_the_signal_is_killed_after_its_grace(tmp_path: Path) -> None:
    stop = asyncio.Event()
    deaf = f"import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n{WAITS}"
    parent = asyncio.create_task(supervised(deaf, tmp_path, stop, grace_s=0.1))
    await until(lambda: len(started(tmp_path)) == 2)
    stop.set()
    assert await parent == signal.SIGKILL
    assert not any(runs(pid) for pid in started(tmp_path))


async def test_a_supervisor_that_is_cancelled_leaves_no_child(tmp_path: Path) -> None:
    parent = asyncio.create_task(supervised(WAITS, tmp_path, asyncio.Event()))
    await until(lambda: len(started(tmp_path)) == 2)
    parent.cancel()
    with pytest.raises(asyncio.CancelledError):
        await parent
    assert not any(runs(pid) for pid in started(tmp_path))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
async def test_members_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(*code(PARENT, str(tmp_path), WAITS))
    try:
        await until(lambda: len(started(tmp_path)) == 2)
    finally:
        parent.kill()
        await parent.wait()
    await until(lambda: not any(runs(pid) for pid in started(tmp_path)))


async def test_a_parent_that_is_asked_to_stop_stops_its_members_and_ends_well(tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(*code(PARENT, str(tmp_path), WAITS))
    await until(lambda: len(started(tmp_path)) == 2)
    parent.terminate()
    assert await parent.wait() == 0
    assert not any(runs(pid) for pid in started(tmp_path))


def drained(folder: Path, seconds: float, *signals: int) -> int:
    process = subprocess.Popen(code(DRAINS, str(folder), str(seconds)))
    end = time.monotonic() + LIMIT_S
    while not (folder / "ready").exists() and time.monotonic() < end:
        time.sleep(0.01)
    for number in signals:
        process.send_signal(number)
    return process.wait(LIMIT_S)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_process_finish_its_work(tmp_path: Path, number: int) -> None:
    assert drained(tmp_path, 0.05, number) == 7


def test_a_drain_that_hangs_is_ended_at_its_bound(tmp_path: Path) -> None:
    assert drained(tmp_path, 60, signal.SIGTERM) == EXIT_UNDRAINED
