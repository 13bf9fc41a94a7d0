"""Commands as a user who has nothing: uid 65534, no home, and an installation that he can read and not write.

``sealed`` makes that true for root too: all is mounted read-only for the command, but for folders that are named.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

NOBODY = 65534
WITHOUT_ENTRY = 1_000_650_000
"""A user of whom no file of the system knows, as OpenShift takes them."""

# Reading is let through, because the tests' own Python may lie in a folder that only root can enter.
_READ = "dac_read_search"
_HOMES = (
    "HOME",
    "USER",
    "LOGNAME",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
    "TMPDIR",
    "NUMBA_CACHE_DIR",
)


# What other mounts there are, such as /dev and /proc, stay as they are: only these folders could hold files of ours.
# Entered again, the working folder is that of the new mount.
_SEAL = """
mount --make-rprivate / &&
{ [ -z "$1" ] || mount --bind "$1" "$1"; } &&
for at in / /tmp /var/tmp; do ! mountpoint -q "$at" || mount -o remount,bind,ro "$at" || exit 1; done &&
shift && cd "$PWD" && exec "$@"
"""


def sealed(command: list[str], writable: Path | None = None) -> list[str]:
    """``command`` where nothing can be written but ``writable`` and what is in it. Skips where nobody may mount."""
    if not _may_mount():
        pytest.skip("nothing may be mounted here, not even for one process")
    return ["unshare", "--mount", "sh", "-c", _SEAL, "sh", "" if writable is None else str(writable), *command]


def needs_children(user: int) -> None:
    """Skip a test whose command starts others by this Python, where that lies in a folder that only root can enter."""
    look = "import shutil, sys; sys.exit(shutil.which(sys.executable) is None)"
    if subprocess.run(as_user(user, sys.executable, "-c", look), check=False).returncode:
        pytest.skip(f"user {user} may not start {sys.executable}, which the command starts again")


@cache
def _may_mount() -> bool:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    tried = subprocess.run(
        ["unshare", "--mount", "sh", "-c", _SEAL, "sh", "", "true"], capture_output=True, check=False
    )
    return tried.returncode == 0


def as_user(user: int, *command: str, **environment: str | None) -> list[str]:
    """``command`` run as ``user``, who has nothing of the environment's homes but what ``environment`` gives.

    Skips the test where that can't be: it needs root and setpriv of util-linux.
    """
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can take another user's place, by setpriv")
    without = [option for name in _HOMES for option in ("-u", name)]
    given = [f"{name}={value}" for name, value in environment.items() if value is not None]
    group = "0" if user == WITHOUT_ENTRY else str(user)
    return [
        *("setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"),
        *(f"--inh-caps=-all,+{_READ}", f"--ambient-caps=-all,+{_READ}", f"--bounding-set=-all,+{_READ}"),
        *("env", *without, *given, *command),
    ]


def headrace_as(user: int, *arguments: str, **environment: str | None) -> list[str]:
    """The command line of headrace, as :func:`as_user` runs it."""
    return as_user(user, sys.executable, "-m", "headrace", *arguments, **environment)
