"""A prefetch instruction for numba kernels: asks for a cache line early, computes nothing, can't fault."""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.extending import intrinsic

CACHE_LINE = 64

_READ, _SECOND_LEVEL, _DATA = 0, 2, 1


def _prefetch(_typing_context: Any, array: Any, index: Any) -> Any:
    """``prefetch(array, index)``, in kernels only: bring the cache line of one item to level 2.

    Level 2, because the rows of one text fill most of level 1. The index counts items from the start of the array's
    data; it may lie outside.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        byte_pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        pointer = builder.bitcast(builder.gep(data, [arguments[1]]), byte_pointer)
        function = builder.module.declare_intrinsic(
            "llvm.prefetch", [byte_pointer], ir.FunctionType(ir.VoidType(), [byte_pointer, number, number, number])
        )
        builder.call(function, [pointer, number(_READ), number(_SECOND_LEVEL), number(_DATA)])
        return context.get_dummy_value()

    return types.void(array, index), generate


prefetch: Any = intrinsic(_prefetch)
