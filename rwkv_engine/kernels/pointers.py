"""Typed views of raw addresses, and bit patterns, inside compiled code.

Weights stay in the mapped file and states with their owners, so kernels receive addresses. An address is an
int64; the caller keeps the memory alive during the call.
"""

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from rwkv_engine.kernels._jit import kernel, viewing
from rwkv_engine.system import cpu


@intrinsic
def _pointer(typingctx: Any, address: Any, dtype: Any) -> Any:
    """int64 address -> C pointer to elements of `dtype`."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(dtype.dtype)(types.int64, dtype), codegen


@intrinsic
def float32_of_bits(typingctx: Any, bits: Any) -> Any:
    """uint32 bit pattern -> float32."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.uint32), codegen


@intrinsic
def bits_of_float32(typingctx: Any, number: Any) -> Any:
    """float32 -> uint32 bit pattern."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.uint32(types.float32), codegen


#: prefetch distance for weights in bytes (1.5, 4, 6 and 12 KiB are all within 5 %)
AHEAD = 0 if cpu.reads_ahead() else 4096


def prefetch_ahead(builder: ir.IRBuilder, address: ir.Value) -> None:
    """Prefetch the line AHEAD of `address` in a stream that is read once; nothing if AHEAD is 0."""
    if AHEAD != 0:
        prefetch(builder, builder.add(address, ir.IntType(64)(AHEAD)), 3)


#: prefetch distance of weights that are multiplied as integers, where the processor reads ahead by itself: it stops at
#: the end of a page, and some lines of a later page make it go on there
FAR = 8192 if cpu.reads_ahead() else 0


def for_arm(builder: ir.IRBuilder) -> bool:
    """Whether this code is for an ARM processor of 64 bits."""
    return builder.module.triple.startswith(("aarch64", "arm64"))


def reads_far(builder: ir.IRBuilder) -> bool:
    """Whether `prefetch_far` is of use."""
    return FAR != 0 and not for_arm(builder)


def prefetch_far(builder: ir.IRBuilder, address: ir.Value) -> None:
    """Prefetch the line FAR bytes ahead of `address` into the second-level cache."""
    prefetch(builder, builder.add(address, ir.IntType(64)(FAR)), 2)


def prefetch(builder: ir.IRBuilder, address: ir.Value, level: int, rolled: bool = False) -> None:
    """Emit llvm.prefetch of a line into the first-level cache (level 3) or the second-level one (level 2).

    The line may be outside mapped memory: a prefetch never faults.

    rolled  LLVM must not unroll the loop that it is in.
    """
    i32, byte = ir.IntType(32), ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [byte, i32, i32, i32])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    where = builder.inttoptr(address, byte)
    builder.call(function, [where, i32(0), i32(level), i32(1)], attrs=("convergent",) if rolled else ())


@viewing
def floats(address: int, count: int) -> np.ndarray:
    """[count] float32 at `address`, as an array that owns nothing."""
    return numba.carray(_pointer(address, np.float32), (count,))


@viewing
def matrix(address: int, rows: int, cols: int) -> np.ndarray:
    """[rows, cols] float32 at `address`; a reshape would also compile numba's error messages."""
    return numba.carray(_pointer(address, np.float32), (rows, cols))


@viewing
def integers(address: int, count: int) -> np.ndarray:
    """[count] int32 at `address`."""
    return numba.carray(_pointer(address, np.int32), (count,))


@viewing
def bytes_at(address: int, count: int) -> np.ndarray:
    """[count] int8 at `address`."""
    return numba.carray(_pointer(address, np.int8), (count,))


@viewing
def words_at(address: int, count: int) -> np.ndarray:
    """[count] int16 at `address`."""
    return numba.carray(_pointer(address, np.int16), (count,))


@viewing
def halves(address: int, count: int) -> np.ndarray:
    """[count] uint16 at `address` (the bits of BF16 or F16 numbers), as an array that owns nothing."""
    return numba.carray(_pointer(address, np.uint16), (count,))


@kernel
def address_of(array: np.ndarray) -> int:
    """Address of an array's first element."""
    return np.int64(array.ctypes.data)
