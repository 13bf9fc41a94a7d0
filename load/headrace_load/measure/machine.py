"""CPU and memory of process trees, sampled; and the machine, the versions and the commit of a result."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import psutil

from headrace_load.result import Machine, Used

HARNESS = "harness"
Sample = tuple[int, dict[str, float]]
"""When (microseconds since the Unix epoch), and the megabytes in use by name."""


class Sampler:
    """Measures process trees by their roots. "harness" is this process and its children that are in no other tree."""

    def __init__(self, roots: Mapping[str, Sequence[int]]) -> None:
        self._roots = dict(roots)
        # By pid and start time, so that the use of a process still counts after its end.
        self._cpu_s: defaultdict[str, dict[tuple[int, float], float]] = defaultdict(dict)
        self._used_before: dict[str, float] = {}
        self.samples: list[Sample] = []

    def watch(self, name: str, roots: Sequence[int]) -> None:
        """Also measure ``roots``, counting from their start."""
        self._roots[name] = roots

    def sample(self) -> None:
        """Look once."""
        seen: set[int] = set()
        memory: dict[str, float] = {}
        for name, roots in (*self._roots.items(), (HARNESS, (os.getpid(),))):
            rss = 0
            for process in _trees(roots):
                if process.pid in seen:
                    continue
                seen.add(process.pid)
                with suppress(psutil.NoSuchProcess, psutil.AccessDenied), process.oneshot():
                    times = process.cpu_times()
                    self._cpu_s[name][process.pid, process.create_time()] = times.user + times.system
                    rss += process.memory_info().rss
            if rss:
                memory[name] = rss / 1e6
        self.samples.append((time.time_ns() // 1000, memory))

    def begin(self) -> None:
        """Count CPU from now on."""
        self.sample()
        self._used_before = {name: sum(used.values()) for name, used in self._cpu_s.items()}

    def cpu_s(self, name: str) -> float:
        """CPU seconds of a tree up to the last sample, since :meth:`begin`."""
        return sum(self._cpu_s[name].values()) - self._used_before.get(name, 0.0)

    def used(self, answers: int, start_s: Mapping[str, float] | None = None) -> dict[str, Used]:
        """What each tree used up to the last sample, during ``answers`` answers. ``start_s`` becomes
        Used.start_cpu_s.
        """
        found: dict[str, Used] = {}
        for name in (*self._roots, HARNESS):
            cpu_s = self.cpu_s(name)
            rss = [memory[name] for _, memory in self.samples if name in memory] or [0.0]
            per_100k = cpu_s * 1e5 / answers if answers else 0.0
            found[name] = Used(
                cpu_s=cpu_s,
                cpu_s_per_100k=per_100k,
                rss_mb=rss[-1],
                rss_mb_most=max(rss),
                start_cpu_s=(start_s or {}).get(name, 0.0),
            )
        return found


def _trees(roots: Sequence[int]) -> Iterator[psutil.Process]:
    for pid in roots:
        with suppress(psutil.NoSuchProcess):
            root = psutil.Process(pid)
            yield root
            yield from root.children(recursive=True)


PACKAGES = ("headrace", "aiokafka", "msgspec", "numpy", "numba", "uvloop")
_PACKAGE = Path(__file__).resolve().parents[1]


def machine() -> Machine:
    """Look at this machine."""
    return Machine(
        cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        processor=_processor(),
        memory_gb=round(psutil.virtual_memory().total / 1e9, 1),
        system=platform.platform(),
        python=platform.python_version(),
        commit=_commit(),
        versions={name: metadata.version(name) for name in PACKAGES if _installed(name)},
    )


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    if described.exists():
        for line in described.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The commit of the checkout that has this file; not of a checkout that merely contains the virtual environment."""
    if _git("ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit = _git("rev-parse", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return None if commit is None else commit + ("+" if changed else "")


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603 - git, with arguments of our own
            ["git", *arguments],  # noqa: S607 - wherever git is
            cwd=_PACKAGE,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
