"""A network's arrays as an artifact stores them, and back, trusting nothing.

Stored are the arrays of :class:`headrace.model.integers.QuantizedNetwork` by their names, ``filters.0`` and so on for
each width. An int8 array whose values all fit four bits is stored as uint8, its last axis packed two a byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.model.integers import MAX_DIMENSIONS, QuantizedNetwork
from headrace.model.network import FIRST_WORD_ROW, PADDING_ROW
from headrace.model.nibbles import NIBBLE_LIMIT, pack_nibbles, unpack_nibbles

# What one worker may be asked to hold beside the file: the tables folded from it.
MAX_TABLE_BYTES = 2**30

Arrays = dict[str, NDArray[Any]]

_KINDS = {
    "word_keys": np.uint32,
    "words": np.int8,
    "word_steps": np.uint8,
    "filter_scales": np.float32,
    "table_scales": np.float32,
    "filter_bias": np.int32,
    "head": np.int8,
    "head_steps": np.uint8,
    "wide_words": np.int8,
    "wide_word_steps": np.uint8,
    "bigram_keys": np.uint32,
    "wide_bigrams": np.int8,
    "wide_bigram_steps": np.uint8,
    "bias": np.int64,
}


def arrays_of(network: QuantizedNetwork) -> Arrays:
    """The arrays to store, contiguous."""
    arrays: Arrays = {name: getattr(network, name) for name in _KINDS}
    arrays |= {f"filters.{place}": filters for place, filters in enumerate(network.filters)}
    return {name: np.ascontiguousarray(_packed(array)) for name, array in arrays.items()}


def fields_of(arrays: Arrays, *, labels: int, widths: Sequence[int], dimensions: int) -> dict[str, Any]:
    """The fields of the network that hold arrays, from what was stored; the other fields say C, the widths and D.

    Raises ValueError that names the first array whose shape, type or content does not fit.
    """
    expected = _expected(arrays, labels, widths, dimensions)
    if set(arrays) != set(expected):
        raise ValueError(f"it has the arrays {sorted(arrays)}, expected {sorted(expected)}")
    checked = {name: _checked(name, arrays[name], shape) for name, shape in expected.items()}
    count = expected["filters.0"][0]
    if not 1 <= dimensions <= MAX_DIMENSIONS or not count:
        raise ValueError(f"{dimensions} dimensions, {count} filters: allowed are 1 to {MAX_DIMENSIONS}, and at least 1")
    if checked["words"][PADDING_ROW].any():
        raise ValueError("row 0 of words is padding and must be zero")
    tables = len(checked["words"]) * sum(widths) * count
    if tables > MAX_TABLE_BYTES:
        raise ValueError(f"its tables would take {tables} bytes, allowed are {MAX_TABLE_BYTES}")
    filters = tuple(checked.pop(f"filters.{place}") for place in range(len(widths)))
    return {**checked, "filters": filters}


def _expected(arrays: Arrays, labels: int, widths: Sequence[int], dimensions: int) -> dict[str, tuple[int, ...]]:
    """The shape of each array, by the sizes of those that say how many words, bigrams and filters there are."""
    sizes = {name: arrays[name].size if name in arrays else 0 for name in ("word_keys", "bigram_keys", "table_scales")}
    kept, bigrams, total = sizes.values()
    rows, count = kept + FIRST_WORD_ROW, total // len(widths)
    shapes: dict[str, tuple[int, ...]] = {
        "word_keys": (kept,),
        "words": (rows, dimensions),
        "word_steps": (rows,),
        "filter_scales": (count * len(widths),),
        "table_scales": (count * len(widths),),
        "filter_bias": (count * len(widths),),
        "head": (labels, count * len(widths)),
        "head_steps": (labels,),
        "wide_words": (rows, labels),
        "wide_word_steps": (rows,),
        "bigram_keys": (bigrams,),
        "wide_bigrams": (bigrams, labels),
        "wide_bigram_steps": (bigrams,),
        "bias": (labels,),
    }
    return shapes | {f"filters.{place}": (count, width, dimensions) for place, width in enumerate(widths)}


def _packed(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype != np.int8 or not array.size or max(int(array.max()), -int(array.min())) > NIBBLE_LIMIT:
        return array
    return pack_nibbles(array.reshape(-1, array.shape[-1])).reshape(*array.shape[:-1], -1)


def _checked(name: str, array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    kind = np.dtype(_KINDS.get(name, np.int8))
    if kind == np.int8 and array.dtype == np.uint8 and array.shape[:-1] == shape[:-1]:
        array = _unpacked(name, array, shape)
    if array.shape != shape or array.dtype != kind:
        raise ValueError(f"{name} is {array.dtype}{list(array.shape)}, expected {kind}{list(shape)}")
    _check_values(name, array)
    return array


def _unpacked(name: str, array: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.int8]:
    try:
        return unpack_nibbles(array.reshape(-1, array.shape[-1]), shape[-1]).reshape(shape)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _check_values(name: str, array: NDArray[Any]) -> None:
    if array.dtype == np.int8 and array.min(initial=0) < -127:
        raise ValueError(f"{name} holds -128, which a symmetric scale has no place for")
    if name.endswith("_scales") and not np.all(np.isfinite(array) & (array > 0)):
        raise ValueError(f"{name} holds a scale that is not a positive number")
    if name.endswith("_steps") and not array.all():
        raise ValueError(f"{name} holds a step of 0")
    if name.endswith("_keys") and len(np.unique(array)) != len(array):
        raise ValueError(f"{name} holds a key twice")
