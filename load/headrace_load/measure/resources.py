"""CPU seconds and memory of trees of processes, sampled."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

import psutil

from headrace_load.measure.timeline import Sample
from headrace_load.result import Used

HARNESS = "harness"


class Sampler:
    """Looks at trees of processes by their roots; "harness" is this process and all below it that is in no other."""

    def __init__(self, roots: Mapping[str, Sequence[int]]) -> None:
        self._roots = dict(roots)
        # By pid and start, so that what a process used still counts when it has ended.
        self._cpu_s: defaultdict[str, dict[tuple[int, float], float]] = defaultdict(dict)
        self._used_before: dict[str, float] = {}
        self.samples: list[Sample] = []

    def watch(self, name: str, roots: Sequence[int]) -> None:
        """Look at ``roots`` too, and count all that they have used since they were started."""
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
        """What each tree used up to the last sample; ``answers`` were given meanwhile. ``start_s`` is of Used."""
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
