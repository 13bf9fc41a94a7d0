"""What is the cuda backend's own: slices, lanes, a machine that has no GPU, and kernels that compile for real ones."""

import numpy as np
import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from headrace.core.errors import UserError
from headrace.model.backends import open_backend
from tests.support.interpreted import Interpreted
from tests.support.networks import random_artifact

TINY = {"labels": 2, "filters": 2, "widths": (1,), "max_tokens": 4}
TEXTS = [f"the {word} film".encode() for word in ("good", "bad", "", "not bad , good")]

# The kernels' parameters, by what they point at.
POINTERS = {
    **dict.fromkeys(("at", "counts", "rows", "filter_bias", "answers"), "*i32"),
    **dict.fromkeys(("features", "head", "wide_words", "wide_bigrams"), "*i16"),
    **dict.fromkeys(("bias", "roots", "factors", "logits"), "*i64"),
    "tables": "*i8",
    "unit": "*fp64",
}
CONSTANTS = {
    "pool": {"WIDTHS": (2, 3, 4), "FIRST_TAPS": (0, 2, 5), "TAPS": 9, "FILTERS": 96, "BLOCK": 32, "WINDOWS": 16},
    "add_up": {"LABELS": 5, "FEATURES": 288, "BLOCK": 32, "LABEL_BLOCK": 8, "ROWS": 32},
    "rank": {"LABELS": 5, "LABEL_BLOCK": 8},
}
TURING, HOPPER = 75, 90


@pytest.mark.parametrize("threads", [1, 2])
def test_a_batch_of_several_slices_is_answered_in_order(threads: int) -> None:
    artifact = random_artifact(5, **TINY)
    # Each of two threads has five slices for its two lanes, and a last one that is not full.
    texts = (TEXTS * 10)[: 9 * 4 + 1]
    expected = open_backend("cpu", artifact).logits(texts)
    assert np.array_equal(Interpreted(artifact, threads, slice_texts=4).logits(texts), expected)


def test_calls_from_several_threads_do_not_meet() -> None:
    artifact = random_artifact(6, **TINY)
    expected = open_backend("cpu", artifact).logits(TEXTS)
    for found in Interpreted(artifact).logits_at_once(TEXTS, 3):
        assert np.array_equal(found, expected)


def test_a_slice_ends_where_its_room_does() -> None:
    from headrace.model import characters
    from headrace.model.backends.cuda import fill_rows
    from headrace.model.lookup import build_lookup
    from headrace.model.words import join_texts

    tokens = 4
    words = (
        characters.table(),
        *build_lookup(np.empty(0, np.uint32), 2),
        *build_lookup(np.empty(0, np.uint32), 1),
    )
    at, counts, rows = np.empty(9, np.int32), np.empty(8, np.int32), np.full(2 * tokens + 5, -1, np.int32)
    batch = join_texts([b"a b c", b"a b c d e f", b"a", b"b"])
    assert fill_rows(*batch, 0, 4, tokens, words, at, counts, rows) == 2
    assert counts.tolist() == [3, 4, 0, 0, 0, 0, 0, 0]
    assert at.tolist() == [0, 3, *[7] * 7]
    # Unknown words, row 1.
    assert rows[:7].tolist() == [1] * 7
    assert fill_rows(*batch, 2, 4, tokens, words, at, counts, rows) == 2


def test_warming_is_possible_without_a_gpu() -> None:
    backend = Interpreted(random_artifact(7, **TINY))
    backend.warm()
    assert len(backend.classify(TEXTS).labels) == len(TEXTS)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_machine_without_a_gpu_is_told_so() -> None:
    with pytest.raises(UserError, match=r"backend cuda needs .*take backend cpu"):
        open_backend("cuda", random_artifact(8, **TINY))


@pytest.mark.parametrize("capability", [TURING, HOPPER])
@pytest.mark.parametrize("name", CONSTANTS)
def test_the_kernels_compile_for_a_real_gpu(
    name: str, capability: int, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from headrace.model.backends import cuda_kernels

    kernel, constants = getattr(cuda_kernels, name), CONSTANTS[name]
    names = kernel.arg_names
    source = ASTSource(
        kernel,
        signature={each: "constexpr" if each in constants else POINTERS.get(each, "i32") for each in names},
        constexprs={(names.index(each),): value for each, value in constants.items()},
        attrs={(place,): [["tt.divisibility", 16]] for place, each in enumerate(names) if each in POINTERS},
    )
    made = triton.compile(
        source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 4, "enable_fp_fusion": False}
    )
    assert len(made.asm["cubin"]) > 0
