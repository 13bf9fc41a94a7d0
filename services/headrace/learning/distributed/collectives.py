"""What the ranks of one training exchange: sums and collections, the same bits on every rank.

Training is written against :class:`Exchange`, so one process, several processes and several machines run the same code.
All ranks call a collective in the same order, or none of them goes on.

Values travel, and are checkpointed, as MessagePack, with arrays and tensors as element type, shape and bytes. Decoding
gives data of a stated type and runs no code, whoever wrote the bytes.
"""

from __future__ import annotations

import math
from typing import Any, Protocol, TypeVar, get_origin

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed

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


class Exchange(Protocol):
    """``rank`` of ``world``, counted from 0."""

    @property
    def rank(self) -> int: ...
    @property
    def world(self) -> int: ...
    def sum(self, array: NDArray[Any]) -> NDArray[Any]:
        """The sum of every rank's ``array``, which have one shape and type. Float sums are in the order of ranks."""

    def gather(self, value: T, kind: type[T]) -> list[T]:
        """Every rank's ``value``, in the order of ranks; for few or small ones.

        ``kind`` is their type as it is written in annotations, of what msgspec knows and of arrays: what comes from
        another rank is data of that type, or a msgspec.ValidationError.
        """


class Alone:
    """A training of one process."""

    rank = 0
    world = 1

    def sum(self, array: NDArray[Any]) -> NDArray[Any]:
        return array

    def gather(self, value: T, kind: type[T]) -> list[T]:  # noqa: ARG002 - as Exchange has it
        return [value]


class Collective:
    """The ranks of torch.distributed's default group, which has been initialized (gloo on CPUs)."""

    def __init__(self) -> None:
        self.rank = distributed.get_rank()
        self.world = distributed.get_world_size()

    def sum(self, array: NDArray[Any]) -> NDArray[Any]:
        total = torch.from_numpy(np.array(array, copy=True, order="C"))
        distributed.all_reduce(total)
        summed: NDArray[Any] = total.numpy()
        return summed

    def gather(self, value: T, kind: type[T]) -> list[T]:
        # Sizes first, then bytes of one length. torch's own all_gather_object would unpickle what the others send.
        own = torch.frombuffer(bytearray(encode(value)), dtype=torch.uint8)
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world)]
        distributed.all_gather(sizes, torch.tensor([len(own)]))
        lengths = [int(size) for size in sizes]
        padded = torch.zeros(max(lengths), dtype=torch.uint8)
        padded[: len(own)] = own
        gathered = [torch.empty_like(padded) for _ in range(self.world)]
        distributed.all_gather(gathered, padded)
        pairs = zip(gathered, lengths, strict=True)
        return [decode(data[:length].numpy().data, kind) for data, length in pairs]
