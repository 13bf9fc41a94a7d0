"""What ranks tell each other, as bytes and back: data of the type that is expected, and nothing else."""

import pickle
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from headrace.learning.distributed.collectives import decode, encode


class Told(msgspec.Struct, frozen=True):
    name: str
    counts: NDArray[np.int64]
    labels: frozenset[str]


def test_a_struct_with_an_array_comes_back_as_it_was():
    told = Told("a", np.arange(6, dtype=np.int64).reshape(2, 3), frozenset({"x"}))
    found = decode(encode(told), Told)

    assert (found.name, found.labels) == (told.name, told.labels)
    assert np.array_equal(found.counts, told.counts)
    found.counts[0, 0] = 7  # it is no view of the bytes


@pytest.mark.parametrize("dtype", ["?", "<i8", "<u8", "<f4", "<f8", "|u1", "|b1"])
@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (2, 3)])
def test_arrays_of_every_kind_and_shape_come_back_to_the_bit(dtype, shape):
    array = np.random.default_rng(7).integers(0, 2, shape).astype(dtype)
    found = decode(encode((array, array)), tuple[NDArray[array.dtype.type], NDArray[array.dtype.type]])
    assert [(one.dtype, one.shape, one.tobytes()) for one in found] == [(array.dtype, shape, array.tobytes())] * 2


def test_the_state_of_an_optimizer_comes_back_and_goes_on_alike():
    def fitted() -> tuple[torch.nn.Linear, torch.optim.Optimizer]:
        torch.manual_seed(1)
        network = torch.nn.Linear(2, 2)
        optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
        step(network, optimizer)
        return network, optimizer

    def step(network: torch.nn.Linear, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        network(torch.ones(3, 2)).sum().backward()
        optimizer.step()

    network, optimizer = fitted()
    kept = decode(encode({"network": network.state_dict(), "optimizer": optimizer.state_dict()}), dict[str, Any])
    other = torch.nn.Linear(2, 2)
    its_optimizer = torch.optim.AdamW(other.parameters(), lr=0.5)
    other.load_state_dict(kept["network"])
    its_optimizer.load_state_dict(kept["optimizer"])
    step(network, optimizer)
    step(other, its_optimizer)
    assert torch.equal(network.weight, other.weight)


@pytest.mark.parametrize(
    "hostile",
    [
        pickle.dumps([1]),
        b"",
        msgspec.msgpack.encode(["|O", [1], b"\0" * 8]),
        msgspec.msgpack.encode(["<f8", [1], b"\0" * 8]),
        msgspec.msgpack.encode(["<i8", [2], b"\0" * 8]),
        msgspec.msgpack.encode(["<i8", [-1, -1], b"\0" * 8]),
        msgspec.msgpack.encode(["<i8", [2**40, 2**40], b"\0" * 8]),
        msgspec.msgpack.encode(["no type", [1], b"\0" * 8]),
        msgspec.msgpack.encode({"a": 1}),
    ],
)
def test_what_is_no_array_of_the_type_expected_is_refused(hostile):
    with pytest.raises(msgspec.DecodeError):
        decode(hostile, NDArray[np.int64])


@pytest.mark.parametrize("hostile", [msgspec.msgpack.Ext(7, b""), msgspec.msgpack.Ext(1, encode(["|O", [1], b""]))])
def test_an_extension_that_is_no_tensor_of_numbers_is_refused(hostile):
    with pytest.raises((msgspec.DecodeError, ValueError)):
        decode(msgspec.msgpack.encode({"state": hostile}), dict[str, Any])


def test_what_is_no_data_is_not_told():
    for value in (object(), np.array([object()]), {"f": print}):
        with pytest.raises((TypeError, NotImplementedError)):
            encode(value)
