"""Commands as a user who has nothing: uid 65534, no home, and an installation that he can read and not write."""

from __future__ import annotations

import os
import shutil
import sys

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
