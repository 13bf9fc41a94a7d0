"""Values of a training as bytes: MessagePack, with arrays and tensors as their element type, shape and bytes.

What comes from another process or from a store is decoded to data and to nothing else, whoever wrote it.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar, get_origin

import msgspec
import numpy as np
import torch

T = TypeVar("T")

_NUMBERS = "biuf"
"""The kinds of elements that are numbers: booleans, integers with and without sign, floats."""

_TENSOR = 1
"""MessagePack's extension type of a tensor."""


class _Array(msgspec.Struct, frozen=True, array_like=True):
    """An array in the order of C; ``dtype`` as numpy writes it, such as ``<f4``."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


def encode(value: object) -> bytes:
    """``value``, of what msgspec knows, arrays of numbers and CPU tensors of numbers, as bytes. Raises TypeError."""
    return msgspec.msgpack.encode(value, enc_hook=_encoded)


def decode(data: bytes | memoryview, kind: type[T]) -> T:
    """What :func:`encode` was given, which has to be of the type ``kind``: an annotation, in which arrays are
    ``NDArray[...]`` and tensors are under ``Any``. Raises msgspec.DecodeError.
    """
    return msgspec.msgpack.decode(data, type=kind, dec_hook=_decoded, ext_hook=_extension)


def _encoded(value: object) -> object:
    if isinstance(value, torch.Tensor):
        return msgspec.msgpack.Ext(_TENSOR, encode(_array(value.detach().numpy())))
    if isinstance(value, np.ndarray):
        return _array(value)
    if isinstance(value, np.generic):
        return value.item()
    raise NotImplementedError(f"a {type(value).__name__} is not told to other ranks")


def _array(value: np.ndarray[Any, Any]) -> _Array:
    if value.dtype.kind not in _NUMBERS:
        raise TypeError(f"an array of {value.dtype} is not told to other ranks")
    return _Array(value.dtype.str, value.shape, value.tobytes())


def _decoded(kind: type[Any], found: object) -> object:
    if get_origin(kind) is not np.ndarray:
        raise NotImplementedError(f"a {kind} is not told by other ranks")
    array = _numbers(msgspec.convert(found, _Array))
    wanted = np.dtype(kind.__args__[1].__args__[0])
    if array.dtype != wanted:
        raise ValueError(f"an array of {array.dtype} where one of {wanted} is expected")
    return array


def _extension(code: int, data: memoryview) -> object:
    if code != _TENSOR:
        raise ValueError(f"unknown extension type {code}")
    return torch.from_numpy(_numbers(msgspec.msgpack.decode(data, type=_Array)))


def _numbers(found: _Array) -> np.ndarray[Any, Any]:
    try:
        dtype = np.dtype(found.dtype)
    except TypeError as error:
        raise ValueError(f"{found.dtype!r} is no type of an array") from error
    if dtype.kind not in _NUMBERS or min(found.shape, default=0) < 0:
        raise ValueError(f"an array of {found.dtype!r} and shape {found.shape} is no array of numbers")
    if len(found.data) != math.prod(found.shape) * dtype.itemsize:
        raise ValueError(f"an array of {found.dtype} and shape {found.shape} has {len(found.data)} bytes")
    # A copy: what frombuffer gives can't be written to.
    return np.frombuffer(found.data, dtype).reshape(found.shape).copy()
