"""Ranks as threads of one process: what a collective does, without processes and without torch.distributed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from headrace.learning.distributed.collectives import Exchange, decode, encode

T = TypeVar("T")
R = TypeVar("R")

# Longer than any unit test computes between two collectives; a rank that never comes fails the others by then.
PATIENCE_S = 60.0


class _Meeting:
    """Where ``world`` threads lay a value down, and go on together once all have."""

    def __init__(self, world: int) -> None:
        self.values: list[Any] = [None] * world
        self.all_are_here = threading.Barrier(world, timeout=PATIENCE_S)


class ThreadExchange:
    """Rank ``rank`` of the ranks that share ``meeting``; fulfils Exchange."""

    def __init__(self, rank: int, world: int, meeting: _Meeting) -> None:
        self.rank = rank
        self.world = world
        self._meeting = meeting

    def sum(self, array: NDArray[Any]) -> NDArray[Any]:
        arrays = self._lay_down(deepcopy(array))
        if len({(a.shape, a.dtype) for a in arrays}) > 1:
            raise ValueError(f"ranks sum arrays of unequal shape or type: {[(a.shape, a.dtype) for a in arrays]}")
        total = np.array(arrays[0], copy=True, order="C")
        for other in arrays[1:]:
            total += other
        return total

    def gather(self, value: T, kind: type[T]) -> list[T]:
        return [decode(data, kind) for data in self._lay_down(encode(value))]

    def _lay_down(self, value: Any) -> list[Any]:
        self._meeting.values[self.rank] = value
        self._meeting.all_are_here.wait()
        values = list(self._meeting.values)
        self._meeting.all_are_here.wait()
        return values


def run_ranks(world: int, function: Callable[[Exchange], R]) -> list[R]:
    """Run ``function`` as every rank of ``world`` at once; the results in the order of ranks.

    A rank that raises breaks the others off, and its error is raised here.
    """
    meeting = _Meeting(world)

    def rank(number: int) -> R:
        try:
            return function(ThreadExchange(number, world, meeting))
        except BaseException:
            meeting.all_are_here.abort()
            raise

    with ThreadPoolExecutor(world) as threads:
        futures = [threads.submit(rank, number) for number in range(world)]
    errors = [error for future in futures if (error := future.exception()) is not None]
    for error in sorted(errors, key=lambda e: isinstance(e, threading.BrokenBarrierError)):
        raise error
    return [future.result() for future in futures]
