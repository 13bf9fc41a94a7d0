"""Answers on a GPU of NVIDIA: words are hashed and looked up on the CPU, everything after that is the GPU's.

The folded tables are in the GPU's memory. A batch goes up in slices over two lanes, so the CPU hashes one slice while
the GPU answers the one before. Who calls from several threads at once gets a pair of lanes for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, LifoQueue

import numpy as np
from numpy.typing import NDArray

from headrace.core.errors import UserError
from headrace.model import characters
from headrace.model.artifact import Artifact
from headrace.model.backends.cuda_rows import fill_rows
from headrace.model.backends.interface import Answers
from headrace.model.backends.padding import shares
from headrace.model.hashing import join_texts
from headrace.model.lookup import build_lookup
from headrace.model.network import FIRST_WORD_ROW
from headrace.model.words import RULES

try:
    import torch
    import triton

    from headrace.model.backends.cuda_lane import Lane
    from headrace.model.backends.cuda_tables import upload
except ModuleNotFoundError as error:
    raise UserError(
        f"backend cuda needs {error.name}, which is not installed; install it by: pip install 'headrace[cuda]'"
    ) from error

SLICE = 256
"""Texts that go up at once: hashing the next slice takes longer than the GPU needs for one, and hides it."""


def find_device() -> torch.device:
    """The GPU, or the CPU where Triton was told to interpret its kernels (TRITON_INTERPRET=1).

    Raises UserError when there is no GPU that torch and Triton can use.
    """
    if triton.knobs.runtime.interpret:
        return torch.device("cpu")
    if torch.version.cuda is None:
        raise UserError(
            f"backend cuda needs a torch that was built for CUDA, and torch {torch.__version__} was not; install one "
            "as pytorch.org says, or take backend cpu"
        )
    if not torch.cuda.is_available():
        raise UserError(
            "backend cuda needs a GPU of NVIDIA, and torch finds none (nvidia-smi shows which the driver sees); "
            "take backend cpu here, its answers are the same"
        )
    return torch.device("cuda")


class CudaBackend:
    """See :class:`headrace.model.backends.interface.Backend`. Raises UserError where there is no GPU."""

    name = "cuda"

    def __init__(self, artifact: Artifact, threads: int = 1) -> None:
        self.artifact = artifact
        network = artifact.network
        self._tables = upload(network, find_device())
        self._pool = ThreadPoolExecutor(threads, "headrace-cuda") if threads > 1 else None
        self._threads = threads
        self._slice = SLICE
        # In the order of the kernel's parameters.
        self._words = (
            characters.table(RULES[network.hashing]),
            network.max_tokens,
            *build_lookup(network.word_keys, FIRST_WORD_ROW),
            *build_lookup(network.bigram_keys, 1),
        )
        self._idle: LifoQueue[tuple[Lane, Lane]] = LifoQueue()

    def warm(self) -> None:
        """Compile the kernels, and record the graphs of one pair of lanes."""
        pair = self._borrow()
        for lane in pair:
            lane.prepare(ranking=0)
        self._idle.put(pair)
        self.classify([b"warm"])

    def logits(self, texts: Sequence[bytes]) -> NDArray[np.int64]:
        """``int64[n, C]``."""
        logits = np.empty((len(texts), len(self.artifact.labels)), np.int64)
        self._answer(texts, 0, logits)
        return logits

    def classify(self, texts: Sequence[bytes], ranking: int = 0) -> Answers:
        """Labels, softmax scores and ranking."""
        ranking = min(ranking, len(self.artifact.labels))
        answers = self._answer(texts, ranking, None)
        scores = answers.view(np.float32)
        middle = 2 + ranking
        whole = np.ascontiguousarray
        return Answers(
            labels=whole(answers[:, 0]),
            scores=whole(scores[:, 1]),
            ranking=whole(answers[:, 2:middle]),
            ranking_scores=whole(scores[:, middle:]),
        )

    def _answer(self, texts: Sequence[bytes], ranking: int, logits: NDArray[np.int64] | None) -> NDArray[np.int32]:
        """Rows as a lane gives them, and the logits into ``logits`` when it is there."""
        data, offsets = join_texts(texts, self.artifact.network.hashing)
        answers = np.empty((len(texts), 2 + 2 * ranking), np.int32)

        def run(first: int, end: int) -> None:
            lane, other = pair = self._borrow()
            under_way: tuple[Lane, slice] | None = None

            def collect(from_lane: Lane, part: slice) -> None:
                found, rows = from_lane.finish(part.stop - part.start, ranking)
                answers[part] = rows
                if logits is not None:
                    logits[part] = found

            while first < end:
                taken = fill_rows(data, offsets, first, end, *self._words, lane.at, lane.counts, lane.rows)
                lane.start(taken, ranking, logits=logits is not None)
                if under_way is not None:
                    collect(*under_way)
                under_way = lane, slice(first, first + taken)
                first += taken
                lane, other = other, lane
            if under_way is not None:
                collect(*under_way)
            # After an error the pair is left alone: the GPU may still write to it.
            self._idle.put(pair)

        if self._pool is None or len(texts) < self._threads:
            run(0, len(texts))
        else:
            bounds = shares(offsets, self._threads)
            list(self._pool.map(run, bounds[:-1], bounds[1:]))
        return answers

    def _borrow(self) -> tuple[Lane, Lane]:
        try:
            return self._idle.get_nowait()
        except Empty:
            return Lane(self._tables, self._slice), Lane(self._tables, self._slice)
