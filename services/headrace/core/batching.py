"""Which waiting requests make the next batch: work-conserving, fair across partitions, bounded twice.

There is no timer. While the model is busy requests gather; when it is free it takes what waits, up to ``max_records``
and ``max_bytes`` (bytes of text stand for tokens: they are known without decoding). The habit is that of
text-embeddings-inference (queue.rs), without its padding, which the folded network does not need.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from typing import Protocol

import msgspec

SHARERS = 8
"""Queues that share a full batch at most. What it costs to publish one queue's requests hardly depends on how many they
are, so many deep queues take turns instead of sharing every batch."""


class Closed(enum.StrEnum):
    """Why a batch took no more."""

    DRAINED = "drained"
    FULL = "full"
    BYTES = "bytes"
    ALONE = "alone"
    """Not by this policy: a record over which a process died is tried by itself."""


class Queue(Protocol):
    """The waiting requests of one partition, oldest first."""

    def __len__(self) -> int: ...
    def sizes(self) -> Iterator[int]:
        """The size in bytes of each waiting request that will reach the model, in order; 0 for one that won't."""


class Cut(msgspec.Struct, frozen=True):
    """``taken[i]`` requests from the front of queue i, and why the batch took no more."""

    taken: tuple[int, ...]
    closed: Closed


def cut(queues: Sequence[Queue], *, max_records: int, max_bytes: int, first: int = 0) -> Cut:
    """Share ``max_records`` over the queues, equal parts first, what is left over then to those with more.

    Of more than SHARERS queues not every one gets a part of a full batch; :func:`next_first` begins with those that got
    none. ``first`` is the queue to begin with. A request larger than ``max_bytes`` is taken when it
    is the first, alone: otherwise it would wait for ever.
    """
    taken = [0] * len(queues)
    order = [(first + step) % len(queues) for step in range(len(queues))] if queues else []
    walks = {index: queues[index].sizes() for index in order if len(queues[index])}
    records, bytes_left = max_records, max_bytes
    least = -(-max_records // SHARERS) if len(walks) > SHARERS else 1
    while walks and records:
        share = max(least, records // len(walks))
        for index in list(walks):
            for _ in range(min(share, records)):
                size = next(walks[index], None)
                if size is None:
                    del walks[index]
                    break
                if size > bytes_left and records < max_records:
                    return Cut(tuple(taken), Closed.BYTES)
                taken[index] += 1
                records -= 1
                bytes_left -= size
            if not records:
                break
    drained = sum(taken) == sum(len(queue) for queue in queues)
    return Cut(tuple(taken), Closed.DRAINED if drained else Closed.FULL)


def next_first(taken: Sequence[int], first: int) -> int:
    """The queue that the next cut begins with, so that none waits longer than one round of all.

    Behind those that were served; when all were, one further, so that none is always served last.
    """
    served = sum(count > 0 for count in taken)
    return first + (served if 0 < served < len(taken) else 1)
