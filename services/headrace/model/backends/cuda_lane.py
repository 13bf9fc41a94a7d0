"""One lane of the cuda backend: the buffers of one slice of a batch, on the CPU and on the GPU, and a stream for them.

A slice goes up in one copy from pinned memory, is computed by one CUDA graph and comes down
in one copy. Texts lie end to end with their places before them, so no buffer depends on their lengths, and a graph is
needed only for each power of two of texts. The last texts of a slice are doubled up to that by texts of no words.
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import triton
from numpy.typing import NDArray

from headrace.model.backends import cuda_kernels
from headrace.model.backends.cuda_tables import Tables

ROOM = 1 << 18
"""Rows of words and bigrams that a slice holds, beside the 2 x max_tokens of one text."""

_WINDOWS = 16
_ROWS = 32
_LONGEST_BLOCK = 128
_LABELS_A_PROGRAM = 32

# A first launch compiles, a capture forbids other work on the GPU, and Triton's interpreter keeps its state in globals.
_launching = threading.Lock()


class Lane:
    """Fill ``at``, ``counts`` and ``rows``, then ``start``, then ``finish``; used by one thread at a time.

    ``size`` is the most texts of a slice, a power of two from 4 on.
    """

    def __init__(self, tables: Tables, size: int) -> None:
        self._tables = tables
        self._size = size
        self._on_gpu = tables.device.type == "cuda"
        # Places and counts lie before the rows, so that all of them go up in one copy; each begins at 16 bytes.
        self._counts_at = size + 4
        self._rows_at = self._counts_at + size
        room = self._rows_at + ROOM + 2 * tables.max_tokens
        labels = tables.labels
        self._up = _Both.of(room, torch.int32, tables.device)
        self._features = torch.empty((size, tables.head.shape[1]), dtype=torch.int16, device=tables.device)
        self._logits = _Both.of(size * labels, torch.int64, tables.device)
        self._answers = _Both.of(size * (2 + 2 * labels), torch.int32, tables.device)
        self._graphs: dict[tuple[int, int], torch.cuda.CUDAGraph] = {}
        self._stream: Any = None
        self._done: Any = None
        if self._on_gpu:
            self._stream = torch.cuda.Stream(tables.device)  # type: ignore[no-untyped-call]
            # Blocking: a thread that waits for the GPU leaves its core to one that hashes.
            self._done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        numbers = self._up.host.numpy()
        self.at: NDArray[np.int32] = numbers[: size + 1]
        """Where each text's rows begin, and where the last one's end."""
        self.counts: NDArray[np.int32] = numbers[self._counts_at : self._rows_at]
        self.rows: NDArray[np.int32] = numbers[self._rows_at :]

    def start(self, count: int, ranking: int, *, logits: bool) -> None:
        """Send ``count`` texts up and let them be answered, with so long a ranking; returns before it is done.

        ``logits`` tells whether the logits come down beside the answers.
        """
        texts = bucket(count)
        used = self._rows_at + int(self.at[count])
        with self._streaming():
            self._up.send(used)
            if self._on_gpu:
                self._graph(texts, ranking).replay()
            else:
                with _launching:
                    self._compute(texts, ranking)
            self._answers.fetch(count * (2 + 2 * ranking))
            if logits:
                self._logits.fetch(count * self._tables.labels)
            if self._done is not None:
                self._done.record()

    def finish(self, count: int, ranking: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Wait, and return ``(logits int64[count, C], answers int32[count, 2 + 2 x ranking])``, valid until a start.

        A row of answers is label, score, the ranking's labels and their scores; scores are the bits of float32. The
        logits are old ones where they were not asked for.
        """
        if self._done is not None:
            self._done.synchronize()
        logits = self._logits.host.numpy()[: count * self._tables.labels]
        answers = self._answers.host.numpy()[: count * (2 + 2 * ranking)]
        return logits.reshape(count, -1), answers.reshape(count, -1)

    def prepare(self, ranking: int) -> None:
        """Record the graphs of all sizes; where there is no GPU there are none."""
        if self._on_gpu:
            with self._streaming():
                # Texts of no words to record with.
                self._up.gpu[: self._rows_at].zero_()
                for size in (1 << power for power in range(self._size.bit_length())):
                    self._graph(size, ranking)

    def _streaming(self) -> AbstractContextManager[Any]:
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def _graph(self, texts: int, ranking: int) -> torch.cuda.CUDAGraph:
        graph = self._graphs.get((texts, ranking))
        if graph is None:
            with _launching:
                # Once outside of the recording: compiling and loading a kernel can't be recorded.
                self._compute(texts, ranking)
                torch.cuda.current_stream().synchronize()
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                    self._compute(texts, ranking)
            self._graphs[texts, ranking] = graph
        return graph

    def _compute(self, texts: int, ranking: int) -> None:
        tables = self._tables
        widths, labels, features = tables.widths, tables.labels, tables.head.shape[1]
        filters = features // len(widths)
        at, counts = self._up.gpu, self._up.gpu[self._counts_at :]
        rows = self._up.gpu[self._rows_at :]
        # The largest power of two that divides F.
        block = min(filters & -filters, _LONGEST_BLOCK)
        label_block = min(triton.next_power_of_2(labels), _LABELS_A_PROGRAM)
        cuda_kernels.pool[texts, filters // block](
            at,
            counts,
            rows,
            tables.tables,
            tables.filter_bias,
            self._features,
            WIDTHS=widths,
            FIRST_TAPS=tuple(sum(widths[:place]) for place in range(len(widths))),
            TAPS=sum(widths),
            FILTERS=filters,
            BLOCK=block,
            WINDOWS=_WINDOWS,
        )
        cuda_kernels.add_up[texts, triton.cdiv(labels, label_block)](
            at,
            counts,
            rows,
            self._features,
            tables.head,
            tables.wide_words,
            tables.wide_bigrams,
            tables.bias,
            tables.roots,
            tables.factors,
            self._logits.gpu,
            LABELS=labels,
            FEATURES=features,
            BLOCK=block,
            LABEL_BLOCK=label_block,
            ROWS=_ROWS,
        )
        cuda_kernels.rank[texts,](
            self._logits.gpu,
            tables.unit,
            ranking,
            self._answers.gpu,
            LABELS=labels,
            LABEL_BLOCK=triton.next_power_of_2(labels),
            # Its floats alone: added and multiplied as the CPU does.
            enable_fp_fusion=False,
        )


@dataclass(frozen=True, eq=False)
class _Both:
    """A flat buffer in pinned memory of the CPU and its counterpart on the GPU."""

    host: torch.Tensor
    gpu: torch.Tensor

    @classmethod
    def of(cls, size: int, kind: torch.dtype, device: torch.device) -> _Both:
        host = torch.zeros(size, dtype=kind, pin_memory=device.type == "cuda")
        # Not zeroed: that would be work on another stream, which a lane's does not wait for.
        return cls(host, torch.empty(size, dtype=kind, device=device))

    def send(self, size: int) -> None:
        """Begin to copy the first ``size`` items to the GPU."""
        self.gpu[:size].copy_(self.host[:size], non_blocking=True)

    def fetch(self, size: int) -> None:
        """Begin to copy the first ``size`` items to the CPU."""
        self.host[:size].copy_(self.gpu[:size], non_blocking=True)


def bucket(count: int) -> int:
    """The smallest power of two that is at least ``count``."""
    return 1 << (count - 1).bit_length()
