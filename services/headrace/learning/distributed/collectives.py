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

from headrace.learning.distributed.values import decode, encode

T = TypeVar("T")


class Exchange(Protocol):
    """``rank`` of ``world``, counted from 0."""

    @property
    def rank(self) -> int: ...
    @property
    def world(self) -> int: ...
    def sum(self, array: NDArray[Any]) -> NDArray[Any]:
        """The sum of every rank's ``array``, which have one shape and type. Float sums are in the order of ranks."""

    def gather(self, value: T, kind: type[T]) -> list[T]:
        """Every rank's ``value``, in the order of ranks; for few or small ones.

        ``kind`` is their type as it is written in annotations, of what msgspec knows and of arrays: what comes from
        another rank is data of that type, or a msgspec.ValidationError.
        """


class Alone:
    """A training of one process."""

    rank = 0
    world = 1

    def sum(self, array: NDArray[Any]) -> NDArray[Any]:
        return array

    def gather(self, value: T, kind: type[T]) -> list[T]:  # noqa: ARG002 - as Exchange has it
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

    def gather(self, value: T, kind: type[T]) -> list[T]:
        # Sizes first, then bytes of one length. torch's own all_gather_object would unpickle what the others send.
        own = torch.frombuffer(bytearray(encode(value)), dtype=torch.uint8)
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world)]
        distributed.all_gather(sizes, torch.tensor([len(own)]))
        lengths = [int(size) for size in sizes]
        padded = torch.zeros(max(lengths), dtype=torch.uint8)
        padded[: len(own)] = own
        gathered = [torch.empty_like(padded) for _ in range(self.world)]
        distributed.all_gather(gathered, padded)
        pairs = zip(gathered, lengths, strict=True)
        return [decode(data[:length].numpy().data, kind) for data, length in pairs]
