"""Answers on an NVIDIA GPU: the CPU hashes and looks up words, the GPU does everything after that.

The folded tables stay in the GPU's memory. A batch goes up in slices over two lanes, so the CPU hashes one slice while
the GPU answers the one before. Each of several calling threads gets a pair of lanes of its own.

A slice goes up in one copy from pinned memory, is computed by one CUDA graph and comes down in one copy. Its texts lie
end to end behind their offsets, so no buffer depends on a text's length, and a graph is needed only for each power of
two of texts. A slice is filled up to that with empty texts.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from queue import Empty, LifoQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.core.errors import UserError
from headrace.model.artifact import Artifact
from headrace.model.backends.cpu import padded, read_text, split_evenly, words_of
from headrace.model.backends.interface import Answers
from headrace.model.compiling import kernel
from headrace.model.folding import fold
from headrace.model.integers import QuantizedNetwork, inverse_roots, stepped
from headrace.model.words import join_texts

try:
    import torch
    import triton

    from headrace.model.backends import cuda_kernels
except ModuleNotFoundError as error:
    raise UserError(
        f"backend cuda needs {error.name}, which is not installed; install it by: pip install 'headrace[cuda]'"
    ) from error


FILTER_BLOCK = 32
"""F is padded to a multiple: the smallest block of a GPU's filters."""


def by_width(array: NDArray[Any], widths: int, filters: int) -> NDArray[Any]:
    """``[..., widths x F]`` with each width's filters padded like the tables' columns."""
    split = array.reshape(*array.shape[:-1], widths, filters)
    wider = padded(split, split.ndim - 1, FILTER_BLOCK)
    return wider.reshape(*array.shape[:-1], -1)


@dataclass(frozen=True, eq=False)
class Tables:
    """The artifact on the GPU, as :mod:`headrace.model.integers` names it; F is padded to a multiple of 32.

    ``tables`` int8[V + 2, taps, F], ``filter_bias`` int32[widths x F], ``head`` int16[C, widths x F], ``wide_words``
    int16[V + 2, C], ``wide_bigrams`` int16[B + 1, C] whose row 0 is zero, ``bias`` int64[C], ``roots``
    int64[max_tokens + 1], ``factors`` int64[2], ``unit`` float64[1].
    """

    device: torch.device
    widths: tuple[int, ...]
    max_tokens: int
    tables: torch.Tensor
    filter_bias: torch.Tensor
    head: torch.Tensor
    wide_words: torch.Tensor
    wide_bigrams: torch.Tensor
    bias: torch.Tensor
    roots: torch.Tensor
    factors: torch.Tensor
    unit: torch.Tensor

    @property
    def labels(self) -> int:
        """C."""
        return len(self.bias)


def upload(network: QuantizedNetwork, device: torch.device) -> Tables:
    """Fold the tables and copy everything to ``device``. Raises BoundsError and FoldingError."""

    def up(array: NDArray[np.generic]) -> torch.Tensor:
        # A copy, because a loaded artifact's arrays can't be written, which torch warns of.
        return torch.from_numpy(array.copy()).to(device)

    widths, filters = len(network.widths), network.filters_a_width
    bigrams = stepped(network.wide_bigrams, network.wide_bigram_steps)
    tables = Tables(
        device=device,
        widths=network.widths,
        max_tokens=network.max_tokens,
        tables=up(padded(fold(network), 2, FILTER_BLOCK)),
        filter_bias=up(by_width(network.filter_bias, widths, filters)),
        head=up(by_width(stepped(network.head, network.head_steps), widths, filters)),
        wide_words=up(stepped(network.wide_words, network.wide_word_steps)),
        # Row 0 is that of no bigram.
        wide_bigrams=up(np.concatenate([np.zeros((1, len(network.labels)), np.int16), bigrams])),
        bias=up(network.bias),
        roots=up(inverse_roots(network.max_tokens)),
        factors=up(np.array([network.convolution_factor, network.wide_factor], np.int64)),
        unit=up(np.array([network.unit], np.float64)),
    )
    if device.type == "cuda":
        # The lanes' streams don't wait for the one that these copies are on.
        torch.cuda.synchronize(device)
    return tables


@kernel
def fill_rows(data, offsets, first, end, max_tokens, words, at, counts, rows):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    """Lay out texts from ``first`` on, until ``end``, ``counts`` or ``rows`` is reached; returns how many.

    Text t of those has ``counts[t]`` words; ``rows[at[t]:at[t + 1]]`` are their rows and then those of its kept
    bigrams. What is left of ``at`` and ``counts`` is filled up with texts of no words. ``rows`` has room for at least
    one text, which is 2 x max_tokens.
    """
    hashes = np.empty(max_tokens, np.uint64)
    pairs = np.empty(max_tokens, np.uint64)
    bigram_rows = np.empty(max_tokens, np.uint64)
    no_tables = np.empty(0, np.int8)
    place = np.int64(0)
    taken = 0
    at[0] = 0
    while first + taken < end and taken < len(counts) and place + 2 * max_tokens <= len(rows):
        text = first + taken
        count, kept = read_text(
            data,
            offsets[text],
            offsets[text + 1],
            words,
            no_tables,
            np.uint64(0),
            hashes,
            pairs,
            rows[place:],
            bigram_rows,
        )
        place += count
        rows[place : place + kept] = bigram_rows[:kept]
        place += kept
        counts[taken] = count
        taken += 1
        at[taken] = place
    at[taken:] = place
    counts[taken:] = 0
    return taken


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
        self._words = words_of(network)
        self._idle: LifoQueue[tuple[Lane, Lane]] = LifoQueue()

    def warm(self) -> None:
        """Compile the kernels, and record the graphs of one pair of lanes."""
        pair = self._borrow()
        for lane in pair:
            lane.prepare(ranking=0)
        self._idle.put(pair)
        self.classify([b"warm"])

    def logits(self, texts: Sequence[bytes]) -> NDArray[np.int64]:
        logits = np.empty((len(texts), len(self.artifact.labels)), np.int64)
        self._answer(texts, 0, logits)
        return logits

    def classify(self, texts: Sequence[bytes], ranking: int = 0) -> Answers:
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
        max_tokens = self.artifact.network.max_tokens
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
                taken = fill_rows(data, offsets, first, end, max_tokens, self._words, lane.at, lane.counts, lane.rows)
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
            bounds = split_evenly(offsets, self._threads)
            list(self._pool.map(run, bounds[:-1], bounds[1:]))
        return answers

    def _borrow(self) -> tuple[Lane, Lane]:
        try:
            return self._idle.get_nowait()
        except Empty:
            return Lane(self._tables, self._slice), Lane(self._tables, self._slice)
