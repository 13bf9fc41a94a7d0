"""The cuda backend under Triton's interpreter, in a process of its own.

Triton reads TRITON_INTERPRET when a kernel's module is imported, its own library's among them, and other tests may have
imported that already. So one child, started when it is first needed, has the variable set before anything else, and
answers for all.
"""

import functools
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.model.artifact import Artifact
from headrace.model.backends import Answers, Backend

LIMIT_S = 120

_opened: dict[int, Backend] = {}
"""In the child: the backends by number."""


class Interpreted:
    """A Backend whose work another process does; ``slice_texts`` is how many texts go up at once, by default many."""

    name = "cuda"

    def __init__(self, artifact: Artifact, threads: int = 1, slice_texts: int | None = None) -> None:
        self.artifact = artifact
        self._number = asked(_open, artifact, threads, slice_texts)

    def warm(self) -> None:
        asked(_call, self._number, "warm")

    def logits(self, texts: Sequence[bytes]) -> NDArray[np.int64]:
        found: NDArray[np.int64] = asked(_call, self._number, "logits", list(texts))
        return found

    def classify(self, texts: Sequence[bytes], ranking: int = 0) -> Answers:
        answers: Answers = asked(_call, self._number, "classify", list(texts), ranking)
        return answers

    def logits_at_once(self, texts: Sequence[bytes], calls: int) -> list[NDArray[np.int64]]:
        """What so many threads of the child get that ask for the same at once."""
        found: list[NDArray[np.int64]] = asked(_at_once, self._number, list(texts), calls)
        return found


def asked(function: Callable[..., Any], *arguments: Any) -> Any:
    """What ``function`` of a module that a child can import returns there."""
    return _child().submit(function, *arguments).result(LIMIT_S)


@functools.cache
def _child() -> ProcessPoolExecutor:
    # Spawned, because a fork would have what this process has imported. It ends with this process.
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_interpret)


def _interpret() -> None:
    os.environ["TRITON_INTERPRET"] = "1"


def _open(artifact: Artifact, threads: int, slice_texts: int | None) -> int:
    from headrace.model.backends.cuda import CudaBackend

    number = len(_opened)
    backend = CudaBackend(artifact, threads)
    if slice_texts is not None:
        backend._slice = slice_texts
    _opened[number] = backend
    return number


def _call(number: int, method: str, *arguments: Any) -> Any:
    return getattr(_opened[number], method)(*arguments)


def _at_once(number: int, texts: Sequence[bytes], calls: int) -> list[NDArray[np.int64]]:
    with ThreadPoolExecutor(calls) as pool:
        return list(pool.map(_opened[number].logits, [texts] * calls))
