"""What the ranks of one training tell each other: sums and collections, the same bits on every rank.

Training is written against :class:`Exchange`, so that one process, several on a machine and several machines run the
same code. A collective is called by all ranks in the same order, or none of them goes on.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed

T = TypeVar("T")


class Exchange(Protocol):
    """``rank`` of ``world``, counted from 0."""

    @property
    def rank(self) -> int: ...
    @property
    def world(self) -> int: ...
    def sum(self, array: NDArray[Any]) -> NDArray[Any]:
        """The sum of every rank's ``array``, which have one shape and type. Float sums are in the order of ranks."""

    def gather(self, value: T) -> list[T]:
        """Every rank's ``value``, in the order of ranks. Any object; for few or small ones."""


class Alone:
    """A training of one process."""

    rank = 0
    world = 1

    def sum(self, array: NDArray[Any]) -> NDArray[Any]:
        return array

    def gather(self, value: T) -> list[T]:
        return [value]


class Collective:
    """The ranks of torch.distributed's default group, which has been initialized (gloo on CPUs)."""

    def __init__(self) -> None:
        self.rank = distributed.get_rank()
        self.world = distributed.get_world_size()

    def sum(self, array: NDArray[Any]) -> NDArray[Any]:
        total = torch.from_numpy(np.array(array, copy=True, order="C"))
        distributed.all_reduce(total)
        summed: NDArray[Any] = total.numpy()
        return summed

    def gather(self, value: T) -> list[T]:
        values: list[Any] = [None] * self.world
        distributed.all_gather_object(values, value)
        return values
