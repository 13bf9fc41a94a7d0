"""The cuda backend on one NVIDIA GPU: its integers beside the reference's, its times, and eager PyTorch on that card.

    python -m tests.benchmarks.gpu [--seconds 240]

It needs a GPU, torch and triton; no data, no broker and no network. Weights and texts are made: 128 dimensions, 96
filters for each of the widths 2, 3, 4, 30,000 words and 60,000 bigrams, texts of 200 bytes by Zipf's law. It ends
within some five minutes. Exit codes: 0, 1 where an integer differs (nothing is timed then), 2 where there is no GPU.

1. Integers: networks of odd shapes and the large one, against the reference and the cpu backend.
2. Batches of 1, 2, 4, ... 4,096 texts from UTF-8 bytes to labels and scores: by CUDA graphs, by single launches, and by
   eager PyTorch, which computes the convolution alone. T(n) = a n + b is fitted to each.
3. What a slice of up to 256 texts is made of: hashing on the CPU, the copy up, the kernels, the copy down.

With TRITON_INTERPRET=1 all of it runs on the CPU, so slowly that its times say nothing: for tests.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from queue import LifoQueue
from typing import Any

import numpy as np
import torch
import triton
from msgspec import Struct

from headrace.core.errors import UserError
from headrace.model.artifact import About, Artifact, assemble
from headrace.model.backends import open_backend
from headrace.model.backends.cuda import CudaBackend, Lane, fill_rows, find_device
from headrace.model.network import Network
from headrace.model.quantizing import quantize
from headrace.model.timing import Timing, fit, measure
from headrace.model.words import join_texts
from headrace_load.workload.spec import MadeTexts
from headrace_load.workload.texts import load_texts
from tests.benchmarks.backends import eager, random_network
from tests.support.networks import random_artifact

LARGEST = 4096
ROUNDS = 5
REFERENCED = 300
"""Texts that the reference answers too: it takes a millisecond for each."""
NO_GPU, DIFFERENT = 2, 1

SHAPES: tuple[dict[str, Any], ...] = (
    {"labels": 2, "filters": 2, "widths": (1,), "max_tokens": 4},
    {"labels": 3},
    {"labels": 150, "filters": 33, "widths": (1, 5), "max_tokens": 40, "extra_words": 1_000, "extra_bigrams": 1_000},
)
ODD_TEXTS: tuple[str, ...] = ("", " ", "film", "the good film", "not bad , 你 好 ! " * 40, "😀" * 9, "a" * 4_000)


class SingleLaunches(Lane):
    """A lane without graphs: each of its kernels is launched by itself."""

    def _graph(self, texts: int, ranking: int) -> Any:
        return _Launch(lambda: self._compute(texts, ranking))


class _Launch(Struct, frozen=True):
    replay: Callable[[], None]


class Parts(Struct, frozen=True):
    """Of a slice of ``texts``, in seconds: the fastest of several."""

    texts: int
    hashing: float
    up: float
    kernels: float
    down: float


def difference(artifact: Artifact, texts: Sequence[bytes]) -> str | None:
    """Where the cuda backend's integers are not those of the others, in words; None where all are equal."""
    found = CudaBackend(artifact).logits(texts)
    for name, some in (("reference", texts[:REFERENCED]), ("cpu", texts)):
        expected = open_backend(name, artifact).logits(some)
        if len(wrong := np.argwhere(found[: len(some)] != expected)):
            text, label = wrong[0]
            return (
                f"text {text}, label {label}: cuda has {found[text, label]}, {name} {expected[text, label]}; "
                f"{len(wrong)} of {expected.size} integers differ"
            )
    return None


def without_graphs(artifact: Artifact) -> CudaBackend:
    """A cuda backend that launches each kernel by itself."""
    backend = CudaBackend(artifact)
    lanes: LifoQueue[tuple[Lane, Lane]] = LifoQueue()
    first, second = (SingleLaunches(backend._tables, backend._slice) for _ in range(2))
    lanes.put((first, second))
    backend._idle = lanes
    return backend


def parts(backend: CudaBackend, texts: Sequence[bytes], rounds: int) -> Parts:
    """What a slice of ``texts`` is made of."""
    network = backend.artifact.network
    lane, count = Lane(backend._tables, backend._slice), len(texts)
    lane.prepare(0)
    data, offsets = join_texts(texts, network.hashing)
    best = [float("inf")] * 4
    for _ in range(rounds):
        began = time.perf_counter()
        fill_rows(data, offsets, 0, count, network.max_tokens, backend._words, lane.at, lane.counts, lane.rows)
        took = [time.perf_counter() - began]
        size = 1 << (count - 1).bit_length()
        used = lane._rows_at + int(lane.at[count])
        on_gpu = lane._on_gpu
        with lane._streaming():
            took.append(_timed(on_gpu, lambda: lane._up.send(used)))  # noqa: B023 - called at once
            compute = lane._graph(size, 0).replay if on_gpu else lambda: lane._compute(size, 0)  # noqa: B023
            took.append(_timed(on_gpu, compute))
            took.append(_timed(on_gpu, lambda: lane._answers.fetch(2 * count)))
        best = [min(pair) for pair in zip(best, took, strict=True)]
    return Parts(count, *best)


def _timed(on_gpu: bool, work: Callable[[], object]) -> float:
    """Seconds of the GPU, between two events of the current stream; of the CPU where kernels are interpreted."""
    if not on_gpu:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began
    begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    begun.record()
    work()
    ended.record()
    ended.synchronize()
    return float(begun.elapsed_time(ended)) / 1000


def batches_table(timed: dict[str, list[Timing]]) -> list[str]:
    """By size and contender microseconds a batch and texts a second, and the line of each."""
    names = list(timed)
    lines = [
        f"| texts | {' | '.join(f'{name}, us | texts/s' for name in names)} |",
        f"|---|{'---|---|' * len(names)}",
    ]
    for row in zip(*timed.values(), strict=True):
        cells = " | ".join(f"{1e6 * one.seconds:,.0f} | {one.rate:,.0f}" for one in row)
        lines.append(f"| {row[0].size} | {cells} |")
    lines.append("")
    for name, timings in timed.items():
        line = fit(timings)
        lines.append(f"{name}: T(n) = {1e6 * line.a:.3g} us x n + {1e6 * line.b:.3g} us")
    return lines


def parts_table(found: Sequence[Parts]) -> list[str]:
    """Microseconds of each part by size."""
    lines = ["| texts | hashing (CPU), us | copy up | kernels | copy down |", "|---|---|---|---|---|"]
    for one in found:
        figures = " | ".join(f"{1e6 * part:.1f}" for part in (one.hashing, one.up, one.kernels, one.down))
        lines.append(f"| {one.texts} | {figures} |")
    return lines


def bench(network: Network, texts: Sequence[bytes], say: Callable[[str], None], *, rounds: int, until_s: float) -> bool:
    """Check and time; False where an integer differs. ``texts`` is a power of two of them, the largest batch.

    No further table is begun past ``until_s`` of time.monotonic.
    """
    artifact = assemble(quantize(network), About())
    odd = [text.encode() for text in ODD_TEXTS]
    checked = [random_artifact(seed, **shape) for seed, shape in enumerate(SHAPES)]
    for number, one in enumerate((*checked, artifact)):
        some = odd if one is not artifact else [*odd, *texts]
        if (wrong := difference(one, some)) is not None:
            say(f"DIFFERENT: network {number}, {wrong}")
            return False
    say(f"integers: equal to those of reference and cpu, {len(checked) + 1} networks, {len(texts)} texts of the last")

    backend = CudaBackend(artifact)
    contenders: dict[str, Callable[[Sequence[bytes]], object]] = {
        "graphs": backend.classify,
        "single launches": without_graphs(artifact).classify,
        "eager PyTorch": eager(network, find_device()),
    }
    backend.warm()
    timed: dict[str, list[Timing]] = {}
    for name, answer in contenders.items():
        if time.monotonic() < until_s:
            timed[name] = measure(answer, texts, rounds, time.perf_counter)
    say("\n".join(("", *batches_table(timed), "")))
    sizes = [1 << power for power in range(min(backend._slice, len(texts)).bit_length())]
    found = [parts(backend, texts[:size], 4 * rounds) for size in sizes if time.monotonic() < until_s]
    say("\n".join(parts_table(found)))
    if time.monotonic() >= until_s:
        say("The time is up, so what is missing was not measured: give it more --seconds.")
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=240.0, help="no further table is begun after so many")
    until_s = time.monotonic() + parser.parse_args(arguments).seconds
    try:
        device = find_device()
    except UserError as error:
        print(f"no GPU here, so nothing was checked or timed: {error}", file=sys.stderr)
        return NO_GPU
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU: interpreted, the times say nothing"
    print(f"{card}; torch {torch.__version__}, CUDA {torch.version.cuda}, triton {triton.__version__}", flush=True)
    texts = load_texts(MadeTexts(), 0)
    network = random_network(texts)
    encoded = [texts[place % len(texts)].encode() for place in range(LARGEST)]
    same = bench(network, encoded, lambda line: print(line, flush=True), rounds=ROUNDS, until_s=until_s)
    return 0 if same else DIFFERENT


if __name__ == "__main__":
    sys.exit(main())
