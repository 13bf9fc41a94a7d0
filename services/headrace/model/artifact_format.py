"""An artifact's bytes: one safetensors file, arrays and a JSON description, never code.

The same content gives the same bytes: arrays go in by name, the description is one JSON text with sorted keys, and the
time is in it only when given. Reading trusts nothing: names, types, shapes, ranges and a checksum over arrays and
description are checked before any of it is used.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from headrace.core.errors import UserError
from headrace.model import characters
from headrace.model.integers import MAX_DIMENSIONS, MAX_TOKENS, MAX_WIDTH, QuantizedNetwork
from headrace.model.network import FIRST_WORD_ROW, PADDING_ROW
from headrace.model.words import HASHING
from headrace_schemas.records import Lineage, Profile

FORMAT = "headrace/1"
# What one worker may be asked to hold: the file, and the tables folded from it.
MAX_FILE_BYTES = 2 * 2**30
MAX_TABLE_BYTES = 4 * 2**30

_KEY = "headrace"
_Arrays = dict[str, NDArray[Any]]


class ArtifactError(UserError):
    """A file is not an artifact that can be used: damaged, altered, hostile, or made for another headrace."""


class Canary(msgspec.Struct, frozen=True):
    """A text and the label that this version answers: how a worker tells a broken model from bad input."""

    text: str
    label: str


class About(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a version comes from and how good it is. Of it only ``threshold`` changes answers: one whose score is
    below it keeps its score and ranking, and has no label.
    """

    created_at_ms: int | None = None
    parent: str | None = None
    lineage: Lineage | None = None
    metrics: dict[str, float] = {}
    compression: dict[str, float] = {}
    libraries: dict[str, str] = {}
    canaries: tuple[Canary, ...] = ()
    profile: Profile | None = None
    threshold: float | None = None


class _Description(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON text of the file: the network's small parts, what its arrays were made with, and :class:`About`."""

    format: str
    hashing: str
    characters_sha256: str
    tables_sha256: str
    labels: tuple[str, ...]
    max_tokens: int
    widths: tuple[int, ...]
    convolution_factor: int
    wide_factor: int
    unit: float
    about: About
    checksum: str = ""


_FIXED = {
    "word_hashes": np.uint64,
    "words": np.int8,
    "word_scales": np.float32,
    "filter_scales": np.float32,
    "table_scales": np.float32,
    "filter_bias": np.int32,
    "head": np.int16,
    "wide_words": np.int16,
    "bigram_hashes": np.uint64,
    "wide_bigrams": np.int16,
    "bias": np.int64,
}


def encode(network: QuantizedNetwork, about: About) -> bytes:
    """The file's bytes, the same for the same content."""
    arrays = _arrays(network)
    description = _Description(
        format=FORMAT,
        hashing=HASHING,
        characters_sha256=characters.digest(),
        tables_sha256=network.tables_sha256,
        labels=network.labels,
        max_tokens=network.max_tokens,
        widths=network.widths,
        convolution_factor=network.convolution_factor,
        wide_factor=network.wide_factor,
        unit=network.unit,
        # As it will be read: a metric given as a whole number is a float there, and would not fit the checksum.
        about=msgspec.convert(msgspec.to_builtins(about), About),
    )
    description = msgspec.structs.replace(description, checksum=_checksum(description, arrays))
    # One key only: safetensors keeps several in no fixed order.
    return save_arrays(arrays, {_KEY: msgspec.json.encode(description, order="sorted").decode()})


def weights_digest(network: QuantizedNetwork) -> str:
    """SHA-256 over the arrays alone: the same for two trainings that came to the same weights."""
    digest = hashlib.sha256()
    _update(digest, _arrays(network))
    return digest.hexdigest()


def decode(data: bytes, source: str) -> tuple[QuantizedNetwork, About]:
    """Read what :func:`encode` wrote. ``source`` names the file in errors.

    Raises ArtifactError saying what is wrong when anything is.
    """
    description = _description(data, source)
    try:
        arrays = load_arrays(data)
    except (SafetensorError, KeyError, ValueError) as error:
        raise ArtifactError(f"{source} is truncated or damaged: {error}") from error
    if description.checksum != _checksum(description, arrays):
        raise ArtifactError(f"{source} was altered or damaged: its checksum does not fit its content")
    try:
        network = _network(description, arrays)
    except ValueError as error:
        raise ArtifactError(f"{source} can't be used: {error}") from error
    return network, description.about


def _description(data: bytes, source: str) -> _Description:
    # safetensors: eight bytes of header length, then the header, a JSON object.
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        raise ArtifactError(f"{source} is truncated, or no safetensors file: {len(data)} bytes")
    try:
        header = msgspec.json.decode(data[8 : 8 + length], type=dict[str, Any])
        text = header["__metadata__"][_KEY]
        made_for = msgspec.json.decode(text, type=dict[str, Any]).get("format")
        if made_for != FORMAT:
            raise ArtifactError(f"{source} has the format {made_for}, this headrace reads {FORMAT}")
        description = msgspec.json.decode(text, type=_Description)
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError, RecursionError) as error:
        raise ArtifactError(f"{source} is no headrace artifact: {error!r}") from error
    for what, theirs, ours in (
        ("hash", description.hashing, HASHING),
        ("character tables", description.characters_sha256, characters.digest()),
    ):
        if theirs != ours:
            raise ArtifactError(f"{source} was made with another {what} ({theirs}, here {ours}): train it again")
    return description


def _arrays(network: QuantizedNetwork) -> _Arrays:
    arrays: _Arrays = {name: getattr(network, name) for name in _FIXED}
    arrays |= {f"filters.{place}": filters for place, filters in enumerate(network.filters)}
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _checksum(description: _Description, arrays: _Arrays) -> str:
    digest = hashlib.sha256(msgspec.json.encode(msgspec.structs.replace(description, checksum=""), order="sorted"))
    _update(digest, arrays)
    return digest.hexdigest()


def _update(digest: hashlib._Hash, arrays: _Arrays) -> None:
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)


def _network(description: _Description, arrays: _Arrays) -> QuantizedNetwork:
    """The network from a file whose checksum fits; raises ValueError when its parts do not fit each other."""
    widths, labels = description.widths, len(description.labels)
    if not labels or len(set(description.labels)) != labels:
        raise ValueError("its labels are not distinct names")
    if not widths or not all(1 <= width <= MAX_WIDTH for width in widths):
        raise ValueError(f"window widths {widths}: allowed are 1 to {MAX_WIDTH}")
    if not 1 <= description.max_tokens <= MAX_TOKENS:
        raise ValueError(f"max_tokens {description.max_tokens}: allowed are 1 to {MAX_TOKENS}")
    if not (np.isfinite(description.unit) and description.unit > 0):
        raise ValueError(f"unit {description.unit}: must be a positive number")
    names = [*_FIXED, *(f"filters.{place}" for place in range(len(widths)))]
    if set(arrays) != set(names):
        raise ValueError(f"it has the arrays {sorted(arrays)}, expected {sorted(names)}")
    filters = tuple(arrays[f"filters.{place}"] for place in range(len(widths)))
    _check_arrays(arrays, filters, widths, labels)
    return QuantizedNetwork(
        labels=description.labels,
        max_tokens=description.max_tokens,
        widths=widths,
        filters=filters,
        convolution_factor=description.convolution_factor,
        wide_factor=description.wide_factor,
        unit=description.unit,
        tables_sha256=description.tables_sha256,
        **{name: arrays[name] for name in _FIXED},
    )


def _check_arrays(arrays: _Arrays, filters: tuple[NDArray[np.int8], ...], widths: tuple[int, ...], labels: int) -> None:
    kept, bigrams = arrays["word_hashes"].size, arrays["bigram_hashes"].size
    dimensions = arrays["words"].shape[-1] if arrays["words"].ndim else 0
    count = filters[0].shape[0] if filters[0].ndim else 0
    rows, total = kept + FIRST_WORD_ROW, count * len(widths)
    shapes: dict[str, tuple[int, ...]] = {
        "word_hashes": (kept,),
        "words": (rows, dimensions),
        "word_scales": (rows,),
        "filter_scales": (total,),
        "table_scales": (total,),
        "filter_bias": (total,),
        "head": (labels, total),
        "wide_words": (rows, labels),
        "bigram_hashes": (bigrams,),
        "wide_bigrams": (bigrams, labels),
        "bias": (labels,),
    }
    kinds: dict[str, type] = dict(_FIXED)
    for place, width in enumerate(widths):
        shapes[f"filters.{place}"] = (count, width, dimensions)
        kinds[f"filters.{place}"] = np.int8
    for name, shape in shapes.items():
        array = arrays[name]
        if array.shape != shape or array.dtype != kinds[name]:
            raise ValueError(
                f"{name} is {array.dtype}{list(array.shape)}, expected {np.dtype(kinds[name])}{list(shape)}"
            )
        if array.dtype == np.int8 and array.min(initial=0) < -127:
            raise ValueError(f"{name} holds -128, which a symmetric scale has no place for")
        if name.endswith("_scales") and not np.all(np.isfinite(array) & (array > 0)):
            raise ValueError(f"{name} holds a scale that is not a positive number")
        if name.endswith("_hashes") and len(np.unique(array)) != len(array):
            raise ValueError(f"{name} holds a hash twice")
    if not 1 <= dimensions <= MAX_DIMENSIONS or not count:
        raise ValueError(f"{dimensions} dimensions, {count} filters: allowed are 1 to {MAX_DIMENSIONS}, and at least 1")
    if arrays["words"][PADDING_ROW].any():
        raise ValueError("row 0 of words is padding and must be zero")
    if rows * sum(widths) * count > MAX_TABLE_BYTES:
        raise ValueError(f"its tables would take {rows * sum(widths) * count} bytes, allowed are {MAX_TABLE_BYTES}")
