"""What kernels need of the processor and numba does not offer: prefetching, and vectors of 16-bit integers.

They are written as LLVM's own types and operations, so LLVM turns them into the instructions of any processor: a vector
is one register of AVX-512, two of AVX2 or four of NEON. Nothing here checks bounds.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.core.datamodel import models
from numba.extending import intrinsic, register_model

CACHE_LINE = 64
LANES = 32
"""Values of a vector."""

_READ, _SECOND_LEVEL, _DATA = 0, 2, 1
_LOWEST = -32768
_VECTOR = ir.VectorType(ir.IntType(16), LANES)
_BYTES = ir.VectorType(ir.IntType(8), LANES)


class Vector(types.Type):  # type: ignore[misc]
    """Numba's type of :data:`LANES` int16."""

    def __init__(self) -> None:
        super().__init__(name=f"int16x{LANES}")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, _VECTOR)  # type: ignore[no-untyped-call]


vector = Vector()


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


prefetch: Any = intrinsic(_prefetch)
load: Any = intrinsic(_load)
store: Any = intrinsic(_store)
add: Any = intrinsic(_add)
largest: Any = intrinsic(_largest)
lowest: Any = intrinsic(_lowest)
