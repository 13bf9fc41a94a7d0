"""Child processes that end with their parent, even when the parent is killed.

On Linux a process can ask for a signal for the moment when its parent ends (``PR_SET_PDEATHSIG``). The process has to
ask by itself, and Python code between fork and exec (``preexec_fn``) may hang in a program with threads. So this file
is also a program: the child begins with it, asks, and then becomes the command. It uses the standard library alone.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Sequence

CANT_RUN = 127
"""The child's exit code when its command can't be run, as in a shell."""

_PR_SET_PDEATHSIG = 1


def ending_with_parent(command: Sequence[str], number: signal.Signals = signal.SIGTERM) -> list[str]:
    """Return the command to start instead of ``command``, so that it is sent ``number`` when this process ends.

    For any of subprocess and asyncio. The process id, the environment, the folder and the open files stay as they are.
    To Linux a parent is a thread, so start the child on a thread that lives as long as the program. Systems other than
    Linux know no such signal; there ``command`` is returned. Raises NoProgramError when the program isn't there, or
    this user must not run it.
    """
    program = shutil.which(command[0])
    if program is None:
        from headrace.core.errors import NoProgramError  # noqa: PLC0415 - not there for this file as a program

        raise NoProgramError(f"{command[0]} is no program that can be run here; this user has to be allowed to run it")
    if sys.platform != "linux":
        return [program, *command[1:]]
    # -I and -S: neither the environment nor the installed packages have a say in this step.
    itself = (sys.executable, "-I", "-S", os.path.abspath(__file__))  # noqa: PTH100 - pathlib would slow each child
    return [*itself, str(os.getpid()), str(int(number)), program, *command[1:]]


def end_with_parent(parent: int, number: signal.Signals) -> None:
    """Ask Linux to send this process ``number`` when its parent ends; ``parent`` is the process id that it should have.

    Exits when the parent has ended already. For the child to call, before anything else.
    """
    if sys.platform != "linux":
        return
    import ctypes  # noqa: PLC0415 - the parent has no need of it

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "Linux refused to tie this process to its parent (prctl)")
    if os.getppid() != parent:
        raise SystemExit(128 + int(number))


def _become(parent: int, number: signal.Signals, command: list[str]) -> None:
    end_with_parent(parent, number)
    # Python ignores these two signals, and the command would inherit that.
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored, signal.SIG_DFL)
    try:
        os.execv(command[0], command)  # noqa: S606 - our own argument list, no shell
    except OSError as error:
        sys.stderr.write(f"{command[0]} can't be run: {error}\n")
        raise SystemExit(CANT_RUN) from error


if __name__ == "__main__":
    _become(int(sys.argv[1]), signal.Signals(int(sys.argv[2])), sys.argv[3:])
