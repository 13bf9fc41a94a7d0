"""Compile the kernels while the image is built, by answering one text with a small network of zeros.

numba keeps what it compiled for one kind of CPU. On another kind a worker compiles again when it starts, into the same
folder (NUMBA_CACHE_DIR), and keeps that.
"""

import numpy as np

from headrace.model.artifact import About, assemble
from headrace.model.backends import open_backend
from headrace.model.network import FIRST_WORD_ROW, Network
from headrace.model.quantizing import quantize

LABELS, DIMENSIONS, FILTERS, WIDTHS = 2, 8, 8, (2, 3, 4)


def zeros(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """``float32[shape]``."""
    return np.zeros(shape, np.float32)


network = Network(
    labels=tuple(f"label {number}" for number in range(LABELS)),
    max_tokens=256,
    widths=WIDTHS,
    word_hashes=np.array([1], np.uint64),
    words=zeros(1 + FIRST_WORD_ROW, DIMENSIONS),
    filters=tuple(zeros(FILTERS, width, DIMENSIONS) for width in WIDTHS),
    filter_bias=zeros(FILTERS * len(WIDTHS)),
    head=zeros(LABELS, FILTERS * len(WIDTHS)),
    head_bias=zeros(LABELS),
    wide_words=zeros(1 + FIRST_WORD_ROW, LABELS),
    bigram_hashes=np.array([1], np.uint64),
    wide_bigrams=zeros(1, LABELS),
    wide_bias=zeros(LABELS),
    blend=0.5,
)
open_backend("cpu", assemble(quantize(network), About())).warm()
