"""Which processes a program has started, found by a variable in the environment that they all inherit (Linux)."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from pathlib import Path

NAME = "HEADRACES_TEST"


class StartedProcesses:
    """A mark of its own, which the processes carry that are started with :meth:`environ`."""

    def __init__(self) -> None:
        self._value = str(uuid.uuid4())

    def environ(self, **more: str) -> Mapping[str, str]:
        """The environment of this process, the mark, and ``more``."""
        return {**os.environ, NAME: self._value, **more}

    def processes(self) -> dict[int, str]:
        """The command lines of the processes that live, by their ids."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if f"{NAME}={self._value}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:  # it has ended, or is another user's
                continue
        return found
