"""What kernels need of the processor and numba does not offer: prefetching, vectors of 16-bit integers, copies of 16
bytes, and products without carries.

They are written as LLVM's own types and operations, so LLVM turns them into the instructions of any processor: a vector
is one register of AVX-512, two of AVX2 or four of NEON. Products without carries are an instruction of x86 alone, which
kernels use where CARRYLESS says so. Nothing here checks bounds.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import config as numba_config
from numba.core import types
from numba.core.codegen import get_host_cpu_features
from numba.core.datamodel import models
from numba.extending import intrinsic, register_model

CACHE_LINE = 64
LANES = 32
"""Values of a vector."""

_READ, _SECOND_LEVEL, _DATA = 0, 2, 1
_LOWEST = -32768
_VECTOR = ir.VectorType(ir.IntType(16), LANES)
_BYTES = ir.VectorType(ir.IntType(8), LANES)
_PAIR = ir.VectorType(ir.IntType(64), 2)

# As numba itself finds what it compiles for.
_config: Any = numba_config
_features: Any = get_host_cpu_features() if _config.CPU_FEATURES is None else _config.CPU_FEATURES  # type: ignore[no-untyped-call]
CARRYLESS = "+pclmul" in _features.split(",")
"""Whether ``fold`` can be used."""


class Vector(types.Type):  # type: ignore[misc]
    """Numba's type of :data:`LANES` int16."""

    def __init__(self) -> None:
        super().__init__(name=f"int16x{LANES}")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, _VECTOR)  # type: ignore[no-untyped-call]


vector = Vector()


class Pair(types.Type):  # type: ignore[misc]
    """Numba's type of two uint64."""

    def __init__(self) -> None:
        super().__init__(name="uint64x2")


@register_model(Pair)
class _PairModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, _PAIR)  # type: ignore[no-untyped-call]


pair = Pair()


def _address(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Where the item lies that the first two arguments name, an array and an index from the start of its data."""
    data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
    return builder.gep(data, [arguments[1]])


def _prefetch(_typing_context: Any, array: Any, index: Any) -> Any:
    """``prefetch(array, index)``, in kernels only: bring the cache line of one item to level 2.

    Level 2, because the rows of one text fill most of level 1. The index counts items from the start of the array's
    data; it may lie outside.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte_pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        pointer = builder.bitcast(_address(context, builder, signature, arguments), byte_pointer)
        function = builder.module.declare_intrinsic(
            "llvm.prefetch", [byte_pointer], ir.FunctionType(ir.VoidType(), [byte_pointer, number, number, number])
        )
        builder.call(function, [pointer, number(_READ), number(_SECOND_LEVEL), number(_DATA)])
        return context.get_dummy_value()

    return types.void(array, index), generate


def _load(_typing_context: Any, array: Any, index: Any) -> Any:
    """``load(array, index)``: the vector of LANES int8 from ``array[index]`` on, widened."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.bitcast(_address(context, builder, signature, arguments), _BYTES.as_pointer())
        return builder.sext(builder.load(pointer, align=1), _VECTOR)

    return vector(array, index), generate


def _store(_typing_context: Any, array: Any, index: Any, values: Any) -> Any:
    """``store(array, index, values)``: write the vector to the int16 from ``array[index]`` on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.bitcast(_address(context, builder, signature, arguments), _VECTOR.as_pointer())
        builder.store(arguments[2], pointer, align=2)
        return context.get_dummy_value()

    return types.void(array, index, values), generate


def _add(_typing_context: Any, left: Any, right: Any) -> Any:
    """``add(left, right)``: the sums, which wrap around."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.add(*arguments)

    return vector(left, right), generate


def _largest(_typing_context: Any, left: Any, right: Any) -> Any:
    """``largest(left, right)``: in each lane the larger value."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.select(builder.icmp_signed(">", *arguments), *arguments)

    return vector(left, right), generate


def _lowest(_typing_context: Any) -> Any:
    """``lowest()``: the least value in each lane."""

    def generate(*_: Any) -> Any:
        return ir.Constant(_VECTOR, [_LOWEST] * LANES)

    return vector(), generate


def _copy_sixteen(_typing_context: Any, out: Any, at: Any, source: Any, index: Any) -> Any:
    """``copy_sixteen(out, at, source, index)``: copy 16 bytes between arrays of uint8."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        places = []
        for place in (0, 2):
            data = context.make_array(signature.args[place])(context, builder, arguments[place]).data
            places.append(builder.bitcast(builder.gep(data, [arguments[place + 1]]), _PAIR.as_pointer()))
        builder.store(builder.load(places[1], align=1), places[0], align=1)
        return context.get_dummy_value()

    return types.void(out, at, source, index), generate


def _make_pair(_typing_context: Any, _first: Any, _second: Any) -> Any:
    """``make_pair(first, second)``: both uint64."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        made = ir.Constant(_PAIR, ir.Undefined)
        for lane, value in enumerate(arguments):
            made = builder.insert_element(made, value, ir.IntType(32)(lane))
        return made

    return pair(types.uint64, types.uint64), generate


def _load_pair(_typing_context: Any, array: Any, index: Any) -> Any:
    """``load_pair(array, index)``: the 16 bytes of uint8 from ``array[index]`` on, in the processor's order."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.bitcast(_address(context, builder, signature, arguments), _PAIR.as_pointer())
        return builder.load(pointer, align=1)

    return pair(array, index), generate


def _flip(_typing_context: Any, left: Any, right: Any) -> Any:
    """``flip(left, right)``: the bits that differ."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.xor(*arguments)

    return pair(left, right), generate


def _fold(_typing_context: Any, value: Any, by: Any, more: Any) -> Any:
    """``fold(value, by, more)``: the first times the first and the second times the second, without carries, and
    ``more``, all flipped together.
    """

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        value, by, more = arguments
        byte = ir.IntType(8)
        multiply = builder.module.declare_intrinsic(
            "llvm.x86.pclmulqdq", fnty=ir.FunctionType(_PAIR, [_PAIR, _PAIR, byte])
        )
        first, second = (builder.call(multiply, [value, by, byte(which)]) for which in (0x00, 0x11))
        return builder.xor(builder.xor(first, second), more)

    return pair(value, by, more), generate


def _half(_typing_context: Any, value: Any, place: Any) -> Any:
    """``half(value, place)``: the first uint64 of a pair, at 0, or the second, at 1."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.extract_element(arguments[0], builder.trunc(arguments[1], ir.IntType(32)))

    return types.uint64(value, place), generate


prefetch: Any = intrinsic(_prefetch)
load: Any = intrinsic(_load)
store: Any = intrinsic(_store)
add: Any = intrinsic(_add)
largest: Any = intrinsic(_largest)
lowest: Any = intrinsic(_lowest)
copy_sixteen: Any = intrinsic(_copy_sixteen)
make_pair: Any = intrinsic(_make_pair)
load_pair: Any = intrinsic(_load_pair)
flip: Any = intrinsic(_flip)
fold: Any = intrinsic(_fold)
half: Any = intrinsic(_half)
