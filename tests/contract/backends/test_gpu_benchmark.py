"""The script for a machine with a GPU: what of it can run where there is none."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from tests.support.interpreted import asked


def test_without_a_gpu_it_says_so_and_ends_with_a_code_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    from tests.benchmarks.gpu import NO_GPU, main

    assert main([]) == NO_GPU != 0
    said = capsys.readouterr()
    assert "no GPU here" in said.err
    assert not said.out


def _bench(seconds: float) -> tuple[bool, list[str]]:
    """In the child whose kernels are interpreted."""
    from tests.benchmarks import gpu
    from tests.support.networks import TEXT, random_network

    said: list[str] = []
    gpu.SHAPES = gpu.SHAPES[:1]
    gpu.ODD_TEXTS = ("", "good")
    texts = [TEXT[: 5 + place].encode() for place in range(2)]
    network = random_network(1, labels=2, filters=2, widths=(1,), max_tokens=2)
    return gpu.bench(network, texts, said.append, rounds=1, until_s=time.monotonic() + seconds), said


@pytest.mark.slow  # it compiles and interprets for half a minute
def test_with_interpreted_kernels_it_checks_and_prints_both_tables() -> None:
    same, (checked, batches, parts) = asked(_bench, 60.0)
    assert same
    assert checked.startswith("integers: equal")
    rows = [line.split("|")[1].strip() for line in batches.splitlines() if line.startswith("|")]
    assert rows == ["texts", "---", "1", "2"]
    assert [line.split(":")[0] for line in batches.splitlines() if "T(n)" in line] == [
        "graphs",
        "single launches",
        "eager PyTorch",
    ]
    assert len(parts.splitlines()) == 2 + 2


def _wrong() -> str | None:
    from headrace.model.backends.cuda import CudaBackend
    from tests.benchmarks import gpu
    from tests.support.networks import random_artifact

    logits = CudaBackend.logits

    def off_by_one(self, texts):  # type: ignore[no-untyped-def]
        found = logits(self, texts)
        found[1, 0] += 1
        return found

    CudaBackend.logits = off_by_one  # type: ignore[method-assign]
    try:
        return gpu.difference(random_artifact(1, labels=2, filters=2, widths=(1,), max_tokens=4), [b"the", b"good"])
    finally:
        CudaBackend.logits = logits  # type: ignore[method-assign]


def test_an_integer_that_differs_is_named() -> None:
    said = asked(_wrong)
    assert said is not None
    assert said.startswith("text 1, label 0: cuda has ")
    assert said.endswith("1 of 4 integers differ")


def test_eager_pytorch_of_the_benchmark_computes_the_networks_convolution() -> None:
    from headrace.model.network import float_logits
    from tests.benchmarks.backends import eager, random_network

    texts = ["the good film", "", "bad film , not good", "film"]
    network = random_network(texts, blend=1.0)
    found = np.asarray(eager(network, torch.device("cpu"))([text.encode() for text in texts]))
    assert np.allclose(found, float_logits(network, texts), rtol=1e-4, atol=1e-3)
