"""Texts a second on one thread: eager convolution, PyTorch's folded int8 operator (FBGEMM), and the cpu backend.

    python tests/benchmarks/backends.py FOLDER

FOLDER holds train.jsonl and test.jsonl with a ``text`` in each line (AG News in the project's reports). The network has
the default size: 128 dimensions, 96 filters for each of the widths 2, 3, 4, the 30,000 most frequent words and 60,000
bigrams of the training texts. Its weights are random: they do not change the speed, the words' distribution does.

All three start from the texts' UTF-8 bytes and hash and look up with the same compiled code, end with logits, and run
at each batch size; the best is printed. The first two compute the convolution alone, the cpu backend the wide part,
labels and scores too. The rounds of the three alternate, so that a busy machine slows all of them.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

# Before numpy and torch start their threads.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

import numba
import numpy as np
import torch
from numpy.typing import NDArray

from headrace.model.artifact import About, assemble
from headrace.model.backends import open_backend
from headrace.model.integers import keys_of
from headrace.model.lookup import build_lookup, find
from headrace.model.network import FIRST_WORD_ROW, Network, float_logits, pair_hashes
from headrace.model.quantizing import quantize
from headrace.model.words import hash_strings, hash_texts, join_texts

DIMENSIONS, FILTERS, WIDTHS, MAX_TOKENS, LABELS = 128, 96, (2, 3, 4), 256, 4
KEPT_WORDS, KEPT_BIGRAMS = 30_000, 60_000
BATCHES = (32, 256)
ROUNDS = 5

Answer = Callable[[Sequence[bytes]], object]


def read_texts(path: Path) -> list[str]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]


def random_network(texts: Sequence[str], blend: float = 0.6) -> Network:
    """A network of random weights over the most frequent words and bigrams of ``texts``."""
    hashes, starts = hash_strings(texts, MAX_TOKENS)
    bigrams: collections.Counter[int] = collections.Counter()
    for start, end in pairwise(starts):
        bigrams.update(pair_hashes(hashes[start:end]).tolist())
    words = most_common(collections.Counter(hashes.tolist()), KEPT_WORDS)
    pairs = most_common(bigrams, KEPT_BIGRAMS)
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> NDArray[np.float32]:
        return rng.normal(size=shape).astype(np.float32)

    embeddings = normal(len(words) + FIRST_WORD_ROW, DIMENSIONS)
    embeddings[0] = 0
    return Network(
        labels=tuple(f"label {place}" for place in range(LABELS)),
        max_tokens=MAX_TOKENS,
        widths=WIDTHS,
        word_hashes=words,
        words=embeddings,
        filters=tuple(normal(FILTERS, width, DIMENSIONS) for width in WIDTHS),
        filter_bias=normal(FILTERS * len(WIDTHS)),
        head=normal(LABELS, FILTERS * len(WIDTHS)),
        head_bias=normal(LABELS),
        wide_words=normal(len(words) + FIRST_WORD_ROW, LABELS),
        bigram_hashes=pairs,
        wide_bigrams=normal(len(pairs), LABELS),
        wide_bias=normal(LABELS),
        blend=blend,
    )


def most_common(counts: collections.Counter[int], limit: int) -> NDArray[np.uint64]:
    return np.array([value for value, _ in counts.most_common(limit)], np.uint64)


@numba.njit(nogil=True)
def rows_of_hashes(hashes, slots, shift, rows):  # type: ignore[no-untyped-def]
    for place in range(len(hashes)):
        rows[place] = max(find(slots, shift, hashes[place]), np.uint64(1))


@numba.njit(nogil=True)
def windows_of(rows, starts, width, indices):  # type: ignore[no-untyped-def]
    at = 0
    for text in range(len(starts) - 1):
        count = starts[text + 1] - starts[text]
        for window in range(max(count, width) - width + 1):
            for tap in range(width):
                row = rows[starts[text] + window + tap] if window + tap < count else 0
                indices[at] = row * width + tap
                at += 1


@numba.njit(nogil=True)
def largest_of(sums, first, largest):  # type: ignore[no-untyped-def]
    for text in range(len(first) - 1):
        largest[text] = sums[first[text]]
        for window in range(first[text] + 1, first[text + 1]):
            for j in range(sums.shape[1]):
                largest[text, j] = max(largest[text, j], sums[window, j])


class Reader:
    """Texts to rows of the embedding, for the two that are not fused."""

    def __init__(self, network: Network) -> None:
        self._lookup = build_lookup(keys_of(network.word_hashes), FIRST_WORD_ROW)

    def rows(self, texts: Sequence[bytes]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        hashes, starts = hash_texts(*join_texts(texts), MAX_TOKENS)
        rows = np.empty(len(hashes), np.int64)
        rows_of_hashes(hashes, *self._lookup, rows)
        return rows, starts


@torch.inference_mode()
def eager(network: Network, device: torch.device | None = None) -> Answer:
    """The convolution as PyTorch users write it: embedding, conv1d, maximum, linear, on padded batches."""
    reader = Reader(network)
    words = torch.from_numpy(network.words).to(device)
    kernels = [torch.from_numpy(filters).permute(0, 2, 1).contiguous().to(device) for filters in network.filters]
    bias, head, head_bias = (
        torch.from_numpy(a).to(device) for a in (network.filter_bias, network.head, network.head_bias)
    )

    @torch.inference_mode()
    def answer(texts: Sequence[bytes]) -> object:
        rows, starts = reader.rows(texts)
        lengths = np.diff(starts)
        padded = np.zeros((len(texts), max(int(lengths.max()), *network.widths)), np.int64)
        padded[np.arange(padded.shape[1]) < lengths[:, None]] = rows
        embedded = words[torch.from_numpy(padded).to(device)].transpose(1, 2)
        pooled = []
        for width, kernel in zip(network.widths, kernels, strict=True):
            sums = torch.nn.functional.conv1d(embedded, kernel)
            windows = torch.from_numpy(np.maximum(lengths, width) - width + 1).to(device)
            outside = torch.arange(sums.shape[2], device=device) >= windows[:, None]
            pooled.append(sums.masked_fill(outside[:, None], -torch.inf).amax(dim=2))
        return (torch.relu(torch.cat(pooled, dim=1) + bias) @ head.T + head_bias).cpu()

    return answer


@torch.inference_mode()
def fbgemm(network: Network) -> Answer:
    """The folded tables in PyTorch's int8 embedding bag: a bag is a window, a row a word at one of its taps.

    What PyTorch is slow at around its operator (the windows' indices, the maximum over a text) is compiled here.
    """
    reader = Reader(network)
    operator = torch.ops.quantized.embedding_bag_byte_rowwise_offsets
    packed = []
    for filters in network.filters:
        table = np.einsum("vd,ftd->vtf", network.words, filters, optimize=True).reshape(-1, FILTERS)
        packed.append(torch.ops.quantized.embedding_bag_byte_prepack(torch.from_numpy(table)))
    bias, head, head_bias = (torch.from_numpy(a) for a in (network.filter_bias, network.head, network.head_bias))

    @torch.inference_mode()
    def answer(texts: Sequence[bytes]) -> object:
        rows, starts = reader.rows(texts)
        lengths = np.diff(starts)
        pooled = []
        for width, table in zip(WIDTHS, packed, strict=True):
            first = np.zeros(len(texts) + 1, np.int64)
            np.cumsum(np.maximum(lengths, width) - width + 1, out=first[1:])
            indices = np.empty(first[-1] * width, np.int32)
            windows_of(rows, starts, width, indices)
            bags = torch.arange(0, len(indices), width, dtype=torch.int32)
            sums = operator(table, torch.from_numpy(indices), bags, False, 0)
            largest = np.empty((len(texts), FILTERS), np.float32)
            largest_of(sums.numpy(), first, largest)
            pooled.append(torch.from_numpy(largest))
        return torch.relu(torch.cat(pooled, dim=1) + bias) @ head.T + head_bias

    return answer


def check_same(name: str, answer: Answer, network: Network, texts: Sequence[str], tolerance: float) -> None:
    """End the run when a contender does not compute this network's convolution."""
    expected = float_logits(network, texts)
    found = np.asarray(answer([text.encode() for text in texts]))
    off = float(np.abs(found - expected).max() / np.abs(expected).max())
    if off > tolerance:
        raise SystemExit(f"{name} computes something else: logits differ by {off:.1%} of the largest")


def seconds(answer: Answer, texts: Sequence[bytes], batch: int) -> float:
    began = time.perf_counter()
    for first in range(0, len(texts), batch):
        answer(texts[first : first + batch])
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    torch.set_num_threads(1)
    training, texts = read_texts(folder / "train.jsonl"), read_texts(folder / "test.jsonl")
    network = random_network(training)
    alone = random_network(training, blend=1.0)
    backend = open_backend("cpu", assemble(quantize(network), About()))
    contenders: dict[str, Answer] = {
        "eager convolution": eager(network),
        "folded int8, FBGEMM": fbgemm(network),
        "cpu backend": backend.classify,
    }
    check_same("eager convolution", contenders["eager convolution"], alone, texts[:100], 1e-4)
    check_same("folded int8, FBGEMM", contenders["folded int8, FBGEMM"], alone, texts[:100], 0.05)

    encoded = [text.encode() for text in texts]
    best = dict.fromkeys(contenders, float("inf"))
    for _ in range(ROUNDS):
        for name, answer in contenders.items():
            for batch in BATCHES:
                answer(encoded[:batch])
                best[name] = min(best[name], seconds(answer, encoded, batch))
    words = hash_texts(*join_texts(encoded), MAX_TOKENS)[1][-1] / len(encoded)
    size = sum(map(len, encoded)) / len(encoded)
    print(f"{len(encoded)} texts of {size:.0f} bytes and {words:.0f} words; {len(network.word_hashes)} kept words")
    print(f"{'':22}{'us a text':>12}{'texts/s':>12}{'x eager':>10}{'x FBGEMM':>10}")
    for name, took in best.items():
        rate = len(encoded) / took
        over_eager, over_fbgemm = best["eager convolution"] / took, best["folded int8, FBGEMM"] / took
        print(f"{name:22}{1e6 / rate:12.2f}{rate:12.0f}{over_eager:10.2f}{over_fbgemm:10.2f}")


if __name__ == "__main__":
    main()
