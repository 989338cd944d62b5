"""What the compiled router does of ``lanes`` and no compiler finds: columns turned on vectors, reads ahead."""

from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from moesim.routing.lanes import LANES, prefetch, turn

# Whose functions have no types.
_code: Any = cgutils
# Bytes of a cache line.
_LINE = 64


@intrinsic
def _turn_tile(typingctx: Any, rows: Any, slot: Any, flat: Any, first: Any) -> tuple[Any, Callable[..., Any]]:
    """Do sixteen columns of ``turn``: at each of four steps two rows d apart swap blocks of d that lie crosswise."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array_rows, array_slot, array_flat = (
            _code.create_struct_proxy(kind)(context, builder, value=value)
            for kind, value in zip(signature.args[:3], arguments[:3], strict=True)
        )
        column, integer = arguments[3], ir.IntType(32)
        vector = ir.VectorType(integer, LANES)
        stride = _code.unpack_tuple(builder, array_rows.shape)[1]
        held, at = [], column
        for _ in range(LANES):
            address = builder.bitcast(builder.gep(array_rows.data, [at]), vector.as_pointer())
            held.append(builder.load(address, align=4))
            at = builder.add(at, stride)
        for d in (8, 4, 2, 1):
            low = ir.Constant(vector, [LANES + i - d if i & d else i for i in range(LANES)])
            high = ir.Constant(vector, [LANES + i if i & d else i + d for i in range(LANES)])
            for r in range(LANES):
                if not r & d:
                    a, b = held[r], held[r + d]
                    held[r], held[r + d] = builder.shuffle_vector(a, b, low), builder.shuffle_vector(a, b, high)
        for i in range(LANES):
            to = builder.load(builder.gep(array_slot.data, [builder.add(column, ir.Constant(column.type, i))]))
            address = builder.bitcast(builder.gep(array_flat.data, [to]), vector.as_pointer())
            builder.store(held[i], address, align=4)
        return context.get_dummy_value()

    return types.void(rows, slot, flat, types.intp), emit


@intrinsic
def _prefetch_line(typingctx: Any, rows: Any, t: Any, at: Any) -> tuple[Any, Callable[..., Any]]:
    """Start to read the cache line that holds ``rows[t, at]``."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = _code.create_struct_proxy(signature.args[0])(context, builder, value=arguments[0])
        pointer = _code.get_item_pointer(context, builder, signature.args[0], array, list(arguments[1:]))
        number, kind = ir.IntType(32), ir.IntType(8).as_pointer()
        function = _code.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [kind, number, number, number]), "llvm.prefetch.p0"
        )
        # To read; into the second cache, since the first is full of keys; data.
        flags = [ir.Constant(number, flag) for flag in (0, 2, 1)]
        builder.call(function, [builder.bitcast(pointer, kind), *flags])
        return context.get_dummy_value()

    return types.void(rows, types.intp, types.intp), emit


@overload(prefetch, inline="never")
def _compiled_prefetch(rows: Any, t: Any) -> Callable[..., None]:
    step = _LINE // (rows.dtype.bitwidth // 8)

    def run(rows: Any, t: Any) -> None:
        for at in range(0, rows.shape[1], step):
            _prefetch_line(rows, t, at)  # type: ignore[call-arg]

    return run


@overload(turn, inline="never")
def _compiled_turn(rows: Any, slot: Any, flat: Any) -> Callable[..., None]:
    def run(rows: Any, slot: Any, flat: Any) -> None:
        for first in range(0, rows.shape[1], LANES):
            _turn_tile(rows, slot, flat, first)  # type: ignore[call-arg]

    return run
