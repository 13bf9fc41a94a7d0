"""Artifacts by somebody who knows the format: checksum and table digest are right, and the content lies.

Whatever a file says, reading it and opening it ends in answers or in an error for people, soon and in little memory.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import operator
import tracemalloc
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from headrace.core.errors import UserError
from headrace.model import artifact
from headrace.model.artifact import MAX_HEADER_BYTES, About, Artifact, Canary, assemble, decode, encode
from headrace.model.backends.interface import open_backend
from headrace.model.errors import ArtifactError
from headrace.model.folding import fold_unchecked, tables_digest
from headrace.model.integers import QuantizedNetwork
from headrace.model.quantizing import quantize
from headrace.worker.versions import open_model
from headrace_schemas.records import Profile
from tests.support.networks import random_network

NETWORK = quantize(random_network(6))
TEXT = "the good film"
LABEL = NETWORK.labels[open_backend("cpu", assemble(NETWORK, About())).classify([TEXT.encode()]).labels[0]]
ABOUT = About(
    created_at_ms=1_700_000_000_000,
    canaries=(Canary(TEXT, LABEL),),
    profile=Profile((0.5, 0.25, 0.25), (0.1,) * 10),
    threshold=0.5,
)
DATA = encode(NETWORK, ABOUT)
ARRAYS = load_arrays(DATA)
HEADER_END = 8 + int.from_bytes(DATA[:8], "little")
HEADER: dict[str, Any] = json.loads(DATA[8:HEADER_END])
DESCRIPTION: dict[str, Any] = json.loads(HEADER["__metadata__"]["headrace"])
BODY = DATA[HEADER_END:]


def is_bearable(data: bytes) -> bool:
    """Whether the file gives answers; if not, it was refused in words, which are few."""
    try:
        network, about = decode(data, "model")
        artifact = Artifact(network, about, "0" * 64, len(data))
        assert artifact.version
        with np.errstate(all="ignore"):
            model = open_model(artifact, "cpu", artifact.version)
        answers = model.backend.classify([TEXT.encode(), b"", "好 7".encode()], ranking=2)
    except UserError as refusal:
        said = str(refusal)
    else:
        assert ((answers.labels >= 0) & (answers.labels < len(network.labels))).all()
        return True
    assert 0 < len(said) < 1000
    return False


def described(description: Any, arrays: dict[str, Any] = ARRAYS) -> bytes:
    """A file with this description, and a checksum that fits it if one can."""
    try:
        read = msgspec.convert(description, artifact._Description)
    except msgspec.ValidationError:
        pass
    else:
        checksum = artifact._checksum(read, arrays)
        description = {**description, "checksum": checksum}
    return save_arrays(arrays, {"headrace": json.dumps(description)})


def framed(header: bytes, body: bytes = BODY) -> bytes:
    return len(header).to_bytes(8, "little") + header + body


def test_a_file_that_was_only_taken_apart_and_put_together_is_read() -> None:
    assert decode(described(DESCRIPTION), "model")[1] == ABOUT
    assert is_bearable(described(DESCRIPTION))
    assert is_bearable(lying(NETWORK))


NUMBERS = st.one_of(
    st.sampled_from([0, -1, 1, 2**31, 2**62, 2**63, -(2**63) - 1, 2**64, 10**30, 0.0, -0.5, 1e308, 5e-324, 0.5]),
    st.integers(-300, 300),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=8), st.sampled_from(["\x1b[2J", "\0", "x" * 5000])),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value inside of ``value``."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, one in inner for found in places(one, (*path, key)))]


def put(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    changed = copy.deepcopy(document)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return changed


def lies(value: Any) -> list[Any]:
    """Other values of the same type: they get past the types, to what is done with them."""
    match value:
        case bool():
            return [not value]
        case int() | float():
            return [0, -1, 1, 1.5, 2**31, 2**53, 2**62, 2**63, -(2**63), 2**64, 10**30, 1e308, -1e308, 5e-324, 1e18]
        case str():
            return ["", "\0", "\x1b[2J", "\u202e", "x" * 100_000, "label 1"]
        case list():
            return [[], value[::-1], value * 2, value[:-1], value * 1000]
        case _:
            return [{}, None]


@pytest.mark.parametrize("path", places(DESCRIPTION), ids=str)
def test_a_description_of_the_right_types_that_lies_is_refused_or_answered_from(path: tuple[Any, ...]) -> None:
    value = functools.reduce(operator.getitem, path, DESCRIPTION)
    for lie in lies(value):
        is_bearable(described(put(DESCRIPTION, path, lie)))


@settings(deadline=None, max_examples=200)
@given(path=st.sampled_from(places(DESCRIPTION)), value=VALUES)
def test_a_description_that_lies_somewhere_is_refused_or_answered_from(path: tuple[Any, ...], value: Any) -> None:
    is_bearable(described(put(DESCRIPTION, path, value)))


@settings(deadline=None, max_examples=200)
@given(path=st.sampled_from(places(HEADER)), value=VALUES)
def test_a_header_that_lies_somewhere_is_refused_or_answered_from(path: tuple[Any, ...], value: Any) -> None:
    is_bearable(framed(json.dumps(put(HEADER, path, value)).encode()))


@settings(deadline=None, max_examples=150)
@given(
    name=st.sampled_from(sorted(ARRAYS)),
    kind=st.sampled_from([np.int8, np.uint8, np.int16, np.uint32, np.int64, np.float16, np.float32, np.float64, bool]),
    shape=st.lists(st.integers(0, 20), max_size=4),
)
def test_an_array_of_any_other_shape_or_type_is_refused_or_answered_from(name: str, kind: Any, shape: Any) -> None:
    is_bearable(described(DESCRIPTION, {**ARRAYS, name: np.ones(shape, kind)}))


EXTREMES = {
    np.dtype(np.int8): [-128, -127, 127, 0],
    np.dtype(np.uint8): [0, 1, 255],
    np.dtype(np.uint32): [0, 2**32 - 1],
    np.dtype(np.int32): [-(2**31), 2**31 - 1, 0],
    np.dtype(np.int64): [-(2**63), 2**63 - 1, 0],
    np.dtype(np.float32): [np.nan, np.inf, -np.inf, -1.0, 0.0, 1e-45, 3e38],
}
ARRAY_FIELDS = [field.name for field in fields(NETWORK) if isinstance(getattr(NETWORK, field.name), np.ndarray)]


def lying(network: QuantizedNetwork) -> bytes:
    """The file of a network whose tables' digest fits, if it can be folded at all."""
    with np.errstate(all="ignore"), contextlib.suppress(ValueError, UserError):
        network = replace(network, tables_sha256=tables_digest(fold_unchecked(network)))
    return encode(network, msgspec.structs.replace(ABOUT, canaries=()))


@settings(deadline=None, max_examples=200)
@given(data=st.data(), name=st.sampled_from(ARRAY_FIELDS), everywhere=st.booleans())
def test_values_that_no_training_gives_are_refused_or_answered_from(data: Any, name: str, everywhere: bool) -> None:
    array = getattr(NETWORK, name).copy()
    value = data.draw(st.sampled_from(EXTREMES[array.dtype]))
    array[... if everywhere else (0,) * array.ndim] = value
    is_bearable(lying(replace(NETWORK, **{name: array})))


@settings(deadline=None, max_examples=150)
@given(first=st.integers(0, len(DATA)), second=st.integers(0, len(DATA)), put_in=st.binary(max_size=40))
def test_a_file_that_was_cut_and_joined_is_refused(first: int, second: int, put_in: bytes) -> None:
    spliced = DATA[:first] + put_in + DATA[second:]
    if spliced != DATA:
        with pytest.raises(ArtifactError):
            decode(spliced, "model")


def entry(**changes: Any) -> bytes:
    """A header whose first array says something else of itself."""
    name = next(name for name in HEADER if name != "__metadata__")
    return json.dumps({**HEADER, name: {**HEADER[name], **changes}}).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 8,
        b"\xff" * 8,
        (2**63).to_bytes(8, "little") + b"{}",
        framed(b"{}"),
        framed(b"[]"),
        framed(b'{"__metadata__": {}}'),
        framed(b'{"__metadata__": {"headrace": 1}}'),
        framed(b'{"__metadata__": {"headrace": "{}"}}'),
        framed(b'{"__metadata__": {"headrace": "\\ud800"}}'),
        framed(b'{"__metadata__": {"headrace": "' + b"[" * 100_000 + b'"}}'),
        framed(b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        framed(entry(data_offsets=[-8, 8])),
        framed(entry(data_offsets=[8, 0])),
        framed(entry(data_offsets=[0, 2**64])),
        framed(entry(data_offsets=[2**40, 2**40 + 8])),
        framed(entry(shape=[2**63])),
        framed(entry(shape=[2**32, 2**32])),
        framed(entry(shape=[0, 2**62])),
        framed(entry(shape=[-1])),
        framed(entry(dtype="F8_E5M2")),
        framed(entry(dtype="BF16")),
        framed(entry(dtype="object")),
        framed(json.dumps(HEADER).encode(), b""),
        framed(json.dumps(HEADER).encode(), BODY + b"\0"),
    ],
    ids=range(25),
)
def test_a_file_whose_frame_lies_is_refused(data: bytes) -> None:
    with pytest.raises(ArtifactError) as raised:
        decode(data, "model")
    assert len(str(raised.value)) < 1000


def bomb(make: Callable[[int], bytes]) -> bytes:
    """A file whose header is as large as one may be."""
    return framed(make(MAX_HEADER_BYTES - 100))


@pytest.mark.parametrize(
    "make",
    [
        lambda size: b'{"x": [' + b"[]," * (size // 3) + b"[]]}",
        lambda size: b'{"__metadata__": {"headrace": "{}", "x": [' + b'"a",' * (size // 4) + b'""]}}',
        lambda size: b'{"__metadata__": {"headrace": "[' + b"{}," * (size // 3) + b'{}]"}}',
    ],
)
def test_a_header_full_of_small_things_is_refused_in_little_memory(make: Callable[[int], bytes]) -> None:
    data = bomb(make)
    tracemalloc.start()
    try:
        with pytest.raises(ArtifactError):
            decode(data, "model")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 * len(data)


def test_a_header_beyond_what_is_allowed_is_not_even_parsed() -> None:
    with pytest.raises(ArtifactError, match=r"has a header of \d+ bytes, allowed are"):
        decode(framed(b" " * (MAX_HEADER_BYTES + 1)), "model")
