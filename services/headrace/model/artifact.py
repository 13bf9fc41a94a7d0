"""A version as a file: safetensors with arrays and a JSON description, never code; immutable, named by its content.

The same content gives the same bytes: arrays go in by name, the description is one JSON text with sorted keys, and the
time is in it only when given. Reading trusts nothing: names, types, shapes, ranges and a checksum over arrays and
description are checked before any of it is used.

The file stores the arrays of :class:`headrace.model.integers.QuantizedNetwork` under their names, ``filters.0`` and so
on for each width. An int8 array whose values all fit four bits is stored as uint8, with two values of its last axis in
a byte.
"""

from __future__ import annotations

import hashlib
import math
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from headrace.core.drift import check_profile
from headrace.model import characters, store
from headrace.model.errors import ArtifactError, StoreError, StoreFault
from headrace.model.integers import MAX_DIMENSIONS, MAX_LOGIT, MAX_TOKENS, MAX_WIDTH, QuantizedNetwork
from headrace.model.network import FIRST_WORD_ROW, PADDING_ROW
from headrace.model.places import Location, as_told
from headrace.model.words import RULES
from headrace_schemas.records import Lineage, Profile

NIBBLE_LIMIT = 7


def pack_nibbles(values: NDArray[np.int8]) -> NDArray[np.uint8]:
    """``uint8[rows, ceil(columns / 2)]`` from ``values`` int8[rows, columns] within +-7.

    The even column is the low half of its byte, in two's complement; an odd number of columns ends with a half of zero.
    """
    even = np.pad(values, ((0, 0), (0, values.shape[1] % 2))).view(np.uint8) & np.uint8(15)
    packed: NDArray[np.uint8] = even[:, ::2] | (even[:, 1::2] << np.uint8(4))
    return packed


def unpack_nibbles(packed: NDArray[np.uint8], columns: int) -> NDArray[np.int8]:
    """The values that :func:`pack_nibbles` was given.

    Raises ValueError when so many ``columns`` take another shape, or a half byte is one that packing never writes: -8,
    or a spare half that is not zero.
    """
    if packed.ndim != 2 or packed.shape[1] != -(-columns // 2):
        raise ValueError(f"uint8{list(packed.shape)} does not hold {columns} columns of four bits")
    halves = np.stack([packed & 15, packed >> 4], axis=2).reshape(len(packed), 2 * packed.shape[1])
    values = (halves ^ 8).view(np.int8) - np.int8(8)
    if values.min(initial=0) < -NIBBLE_LIMIT or values[:, columns:].any():
        raise ValueError("it holds a half byte that packing never writes")
    return np.ascontiguousarray(values[:, :columns])


# The most bytes of folded tables that one worker holds beside the file.
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
    """The network's fields that hold arrays, from the stored ones; the other fields say C, the widths and D.

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


FORMAT = "headrace/2"
# The largest header of a file: one byte of JSON can become a hundred in memory.
MAX_HEADER_BYTES = 16 * 2**20
# The most characters that an error quotes of a file, which may be hostile.
LONGEST_QUOTED = 300
LATEST_MS = 253_402_300_799_999  # the end of the year 9999, the last that a version can be named after

_KEY = "headrace"


class Canary(msgspec.Struct, frozen=True):
    """A text and the label that this version answers: how a worker tells a broken model from bad input."""

    text: str
    label: str


class About(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a version comes from and how good it is. Only ``threshold`` changes answers: an answer with a
    lower score keeps its score and ranking, and has no label.
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
    untested: tuple[str, ...] = ()


class _Description(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON text of the file: the network's small parts, what its arrays were made with, and :class:`About`."""

    format: str
    hashing: str
    characters_sha256: str
    tables_sha256: str
    labels: tuple[str, ...]
    max_tokens: int
    widths: tuple[int, ...]
    dimensions: int
    word_unit: float
    convolution_factor: int
    wide_factor: int
    unit: float
    about: About
    checksum: str = ""


class _Metadata(msgspec.Struct, frozen=True):
    """The free part of a safetensors header; what else somebody put there is not even kept."""

    headrace: str


class _Header(msgspec.Struct, frozen=True, rename={"metadata": "__metadata__"}):
    metadata: _Metadata


class _MadeFor(msgspec.Struct, frozen=True):
    """The format alone: a description of another one has other fields."""

    format: str


def encode(network: QuantizedNetwork, about: About) -> bytes:
    """The file's bytes, the same for the same content."""
    arrays = arrays_of(network)
    description = _Description(
        format=FORMAT,
        hashing=network.hashing,
        characters_sha256=characters.digest(RULES[network.hashing]),
        tables_sha256=network.tables_sha256,
        labels=network.labels,
        max_tokens=network.max_tokens,
        widths=network.widths,
        dimensions=network.words.shape[-1],
        word_unit=network.word_unit,
        convolution_factor=network.convolution_factor,
        wide_factor=network.wide_factor,
        unit=network.unit,
        # As a reader sees it: to a reader a metric that is a whole number is a float, which would change the checksum.
        about=msgspec.convert(msgspec.to_builtins(about), About),
    )
    description = msgspec.structs.replace(description, checksum=_checksum(description, arrays))
    # One key only: safetensors keeps several in no fixed order.
    return save_arrays(arrays, {_KEY: msgspec.json.encode(description, order="sorted").decode()})


def weights_digest(network: QuantizedNetwork) -> str:
    """SHA-256 over the arrays alone: the same for two trainings that came to the same weights."""
    digest = hashlib.sha256()
    _update(digest, arrays_of(network))
    return digest.hexdigest()


def decode(data: bytes, source: str) -> tuple[QuantizedNetwork, About]:
    """Read what :func:`encode` wrote. ``source`` names the file in errors.

    Raises ArtifactError saying what is wrong when anything is.
    """
    description = _description(data, source)
    try:
        arrays = load_arrays(data)
    # KeyError: a type that numpy has not. OverflowError: a shape beyond its numbers.
    except (SafetensorError, KeyError, ValueError, OverflowError) as error:
        raise ArtifactError(f"{source} is truncated or damaged: {str(error)[:LONGEST_QUOTED]}") from error
    if description.checksum != _checksum(description, arrays):
        raise ArtifactError(f"{source} was altered or damaged: its checksum does not fit its content")
    try:
        network = _network(description, arrays)
        _check_about(description.about, len(description.labels))
    except ValueError as error:
        raise ArtifactError(f"{source} can't be used: {str(error)[:LONGEST_QUOTED]}") from error
    return network, description.about


def _description(data: bytes, source: str) -> _Description:
    # safetensors: eight bytes of header length, then the header, a JSON object.
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        raise ArtifactError(f"{source} is truncated, or no safetensors file: {len(data)} bytes")
    if length > MAX_HEADER_BYTES:
        raise ArtifactError(f"{source} has a header of {length} bytes, allowed are {MAX_HEADER_BYTES}")
    try:
        text = msgspec.json.decode(data[8 : 8 + length], type=_Header).metadata.headrace
        made_for = msgspec.json.decode(text, type=_MadeFor).format
        if made_for != FORMAT:
            raise ArtifactError(f"{source} has the format {made_for[:LONGEST_QUOTED]!r}, this headrace reads {FORMAT}")
        description = msgspec.json.decode(text, type=_Description)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ArtifactError(f"{source} is no headrace artifact: {error!r}") from error
    rule = RULES.get(description.hashing)
    if rule is None:
        said, known = description.hashing[:LONGEST_QUOTED], ", ".join(RULES)
        raise ArtifactError(f"{source} was made with another hash ({said}, here {known}): train it again")
    theirs, ours = description.characters_sha256[:LONGEST_QUOTED], characters.digest(rule)
    if theirs != ours:
        raise ArtifactError(f"{source} was made with other character tables ({theirs}, here {ours}): train it again")
    return description


def _checksum(description: _Description, arrays: Arrays) -> str:
    digest = hashlib.sha256(msgspec.json.encode(msgspec.structs.replace(description, checksum=""), order="sorted"))
    _update(digest, arrays)
    return digest.hexdigest()


def _update(digest: hashlib._Hash, arrays: Arrays) -> None:
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)


def _network(description: _Description, arrays: Arrays) -> QuantizedNetwork:
    """The network from a file whose checksum fits; raises ValueError when its parts do not fit each other."""
    widths, labels = description.widths, len(description.labels)
    if not labels or len(set(description.labels)) != labels:
        raise ValueError("its labels are not distinct names")
    if not widths or not all(1 <= width <= MAX_WIDTH for width in widths):
        raise ValueError(f"window widths {widths}: allowed are 1 to {MAX_WIDTH}")
    if not 1 <= description.max_tokens <= MAX_TOKENS:
        raise ValueError(f"max_tokens {description.max_tokens}: allowed are 1 to {MAX_TOKENS}")
    for factor in (description.convolution_factor, description.wide_factor):
        if abs(factor) > MAX_LOGIT:
            raise ValueError(f"factor {factor}: allowed are {-MAX_LOGIT} to {MAX_LOGIT}")
    for unit in (description.unit, description.word_unit):
        if not (np.isfinite(unit) and unit > 0):
            raise ValueError(f"unit {unit}: must be a positive number")
    if len(description.tables_sha256) != hashlib.sha256().digest_size * 2:
        raise ValueError("the SHA-256 that it gives for its tables is no SHA-256")
    fields = fields_of(arrays, labels=labels, widths=widths, dimensions=description.dimensions)
    return QuantizedNetwork(
        labels=description.labels,
        max_tokens=description.max_tokens,
        widths=widths,
        word_unit=description.word_unit,
        convolution_factor=description.convolution_factor,
        wide_factor=description.wide_factor,
        unit=description.unit,
        tables_sha256=description.tables_sha256,
        hashing=description.hashing,
        **fields,
    )


def _check_about(about: About, labels: int) -> None:
    """Check the parts of the history that are computed with. Raises ValueError."""
    if about.created_at_ms is not None and not 0 <= about.created_at_ms <= LATEST_MS:
        raise ValueError(f"its time is {about.created_at_ms} ms, which is no time")
    if about.threshold is not None and not (math.isfinite(about.threshold) and 0 <= about.threshold <= 1):
        raise ValueError(f"its threshold is {about.threshold}, and a score is from 0 to 1")
    if about.profile is not None:
        check_profile(about.profile, labels)


@dataclass(frozen=True, eq=False)
class Artifact:
    """A version: its network in integers, its history, and the SHA-256 and size in bytes of its file."""

    network: QuantizedNetwork
    about: About
    sha256: str
    size: int

    @property
    def labels(self) -> tuple[str, ...]:
        """The names that answers index."""
        return self.network.labels

    @property
    def version(self) -> str:
        """The version's name: its time in UTC, when it has one, and the first 12 digits of its SHA-256."""
        prefix = self.sha256[:12]
        if self.about.created_at_ms is None:
            return prefix
        return f"{datetime.fromtimestamp(self.about.created_at_ms / 1000, UTC):%Y%m%dT%H%M%SZ}-{prefix}"


def assemble(network: QuantizedNetwork, about: About) -> Artifact:
    """The artifact of a network; the same network and history give the same SHA-256."""
    data = encode(network, about)
    return Artifact(network, about, hashlib.sha256(data).hexdigest(), len(data))


def save(artifact: Artifact, where: Location | str) -> None:
    """Write an artifact; no reader sees a part of it (see :mod:`headrace.model.store`).

    A ``str`` is a file that the operator named, see :func:`headrace.model.places.as_told`. Raises StoreError when it
    can't be written.
    """
    data = encode(artifact.network, artifact.about)
    if hashlib.sha256(data).hexdigest() != artifact.sha256:
        raise ArtifactError(
            f"{artifact.version} would not be written as it was read (by another release of safetensors?): "
            "copy its file instead"
        )
    store.write(as_told(where) if isinstance(where, str) else where, data, artifact.sha256[:12])


def load(where: Location | str, sha256: str | None = None, size: int | None = None) -> Artifact:
    """Read an artifact, and check it against the ``sha256`` and ``size`` of its registry record when they are given.

    A ``str`` is a file that the operator named, see :func:`headrace.model.places.as_told`; a URI from a record has to
    be located below an allowed place before. Raises ArtifactError when it is not the one recorded, or damaged, hostile
    or of another format; StoreError, which is one, when there is no file or the store can't be reached.
    """
    where = as_told(where) if isinstance(where, str) else where
    data = read_checked(where, sha256, size)
    network, about = decode(data, where.uri)
    return Artifact(network, about, hashlib.sha256(data).hexdigest(), len(data))


def read_checked(where: Location, sha256: str | None = None, size: int | None = None) -> bytes:
    """The bytes of an artifact, checked as :func:`load` does and not yet parsed. Raises as it does."""
    found = store.size_of(where)
    if found is None:
        raise StoreError(f"{where}: there is no such artifact", StoreFault.ABSENT)
    if size is not None and found != size:
        raise ArtifactError(f"{where} has {found} bytes, its record says {size}: truncated, or another file")
    if found > store.MAX_FILE_BYTES:
        raise ArtifactError(f"{where} has {found} bytes, allowed are {store.MAX_FILE_BYTES}")
    data = store.read(where, found)
    if len(data) != found:
        raise ArtifactError(f"{where} has {found} bytes, and the store gave {len(data)} of them")
    digest = hashlib.sha256(data).hexdigest()
    if sha256 is not None and digest != sha256:
        raise ArtifactError(f"{where} has the SHA-256 {digest}, its record says {sha256}: altered, or another file")
    return data


def beside(where: Location) -> tuple[Location, Location]:
    """Where the curve of the compression lies beside the artifact: as JSON and as a picture."""
    return where.beside(".curve.json"), where.beside(".curve.svg")


def library_versions() -> dict[str, str]:
    """What an artifact is made with: Python, headrace and the libraries that touch its numbers."""
    versions = {"python": platform.python_version(), "numpy": np.__version__}
    for name in ("headrace", "numba", "safetensors", "torch"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            # torch is not part of a worker's environment.
            continue
    return versions
