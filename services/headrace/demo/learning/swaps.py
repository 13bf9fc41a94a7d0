"""Which version answered when, and how long requests waited beside each swap."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from headrace.client import Answer
from headrace.core.clock import Clock
from headrace.demo.ledger import Sent
from headrace.registry.history import Move

BESIDE_MS = 1000


class Waited(msgspec.Struct, frozen=True):
    """A text of the stream: when it was due (ms since the Unix epoch), how long its answer took to be read (seconds),
    and where, when (the answer's own time stamp) and by which version it was answered.
    """

    due_ms: float
    seconds: float
    partition: int
    answered_ms: int
    version: str


class Swap(msgspec.Struct, frozen=True, kw_only=True):
    """From the alias's record to the first answer of the version, and to the last partition's first one, in seconds.

    ``worst`` is the longest wait, in seconds, of the ``beside`` texts that were due within BESIDE_MS of those two.
    """

    first: float
    everywhere: float
    worst: float
    beside: int


class Observed:
    """Takes note of every answer of the stream, of which it holds a line each."""

    def __init__(self, clock: Clock) -> None:
        # What is due is said by a clock that has no date.
        self._epoch_ms = clock.now_ms() - 1000 * clock.monotonic()
        self.waits: list[Waited] = []
        self.runs: dict[int, list[str]] = {}
        """Of each partition the versions that answered, in the order of the requests, a row of one version once."""

    def note(self, sent: Sent, answer: Answer, now: float) -> None:
        """Take note of an answer read at ``now``, in seconds of the clock."""
        version = answer.result.version
        runs = self.runs.setdefault(answer.partition, [])
        if runs[-1:] != [version]:
            runs.append(version)
        if sent.due is not None:
            due_ms = self._epoch_ms + 1000 * sent.due
            self.waits.append(Waited(due_ms, now - sent.due, answer.partition, answer.timestamp_ms, version))

    def answering(self, partitions: int) -> frozenset[str] | None:
        """The versions of the last answers, None as long as not all ``partitions`` have one."""
        return frozenset(runs[-1] for runs in self.runs.values()) if len(self.runs) == partitions else None


def swap(waits: Collection[Waited], move: Move) -> Swap:
    """What the swap by ``move`` was like. Raises ValueError when its version has answered nothing since."""
    version, moved_ms = move.alias.version, move.recorded_ms
    firsts: dict[int, int] = {}
    for one in waits:
        if one.version == version and one.answered_ms >= moved_ms:
            firsts[one.partition] = min(one.answered_ms, firsts.get(one.partition, one.answered_ms))
    if not firsts:
        raise ValueError(f"{version} has answered nothing since the alias was moved to it")
    first, last = min(firsts.values()), max(firsts.values())
    begin, end = moved_ms - BESIDE_MS, last + BESIDE_MS
    beside = [one.seconds for one in waits if begin <= one.due_ms <= end]
    return Swap(
        first=(first - moved_ms) / 1000,
        everywhere=(last - moved_ms) / 1000,
        worst=max(beside),
        beside=len(beside),
    )


def in_order(runs: Collection[Sequence[str]], champions: Sequence[str]) -> bool:
    """Whether every partition was answered by the ``champions`` one after another, and by nothing else."""
    return all(list(one) == list(champions) for one in runs)
