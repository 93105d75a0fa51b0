"""LLVM IR over vectors of 16 float32: the vocabulary shared by kernels in explicit vector code.

LLVM splits such a vector into what the target has: one AVX-512 register, two of AVX2, four of NEON.
"""

from collections.abc import Sequence

from llvmlite import ir
from numba.core import cgutils

from rwkv_engine.kernels.pointers import for_arm, prefetch

LANES = 16
I8, I16, I32, I64, F32 = (*(ir.IntType(bits) for bits in (8, 16, 32, 64)), ir.FloatType())
FLOATS, WORDS = ir.VectorType(F32, LANES), ir.VectorType(I32, LANES)
ZERO = FLOATS([0.0] * LANES)


def load(b: ir.IRBuilder, address: ir.Value, kind: ir.Type, align: int = 1) -> ir.Value:
    """A number or vector of type `kind` at an int64 address."""
    value = b.load(b.inttoptr(address, kind.as_pointer()))
    value.align = align
    return value


def store(b: ir.IRBuilder, value: ir.Value, address: ir.Value) -> None:
    """Write float32 numbers to an int64 address."""
    b.store(value, b.inttoptr(address, value.type.as_pointer())).align = 4


def parted(b: ir.IRBuilder, vector: ir.Value, count: int) -> list[ir.Value]:
    """A vector as vectors of `count` elements."""
    if vector.type.count == count:
        return [vector]
    undefined = ir.Constant(vector.type, ir.Undefined)
    orders = [
        ir.Constant(ir.VectorType(I32, count), list(range(first, first + count)))
        for first in range(0, vector.type.count, count)
    ]
    return [b.shuffle_vector(vector, undefined, order) for order in orders]


def splat(b: ir.IRBuilder, number: ir.Value, count: int = LANES) -> ir.Value:
    """A vector with `count` copies of a number."""
    kind = ir.VectorType(number.type, count)
    one = b.insert_element(ir.Constant(kind, ir.Undefined), number, I32(0))
    return b.shuffle_vector(
        one, ir.Constant(kind, ir.Undefined), ir.Constant(ir.VectorType(I32, count), [0] * count)
    )


def fma(b: ir.IRBuilder, x: ir.Value, y: ir.Value, z: ir.Value) -> ir.Value:
    """x * y + z of 16 float32 each, fused if the target supports it."""
    kind = ir.FunctionType(FLOATS, [FLOATS] * 3)
    return b.call(cgutils.get_or_insert_function(b.module, kind, "llvm.fmuladd.v16f32"), [x, y, z])


class Loop:
    """A loop under construction: `number` = 0, step, 2 step ... below `limit` (1 or more), with vector sums.

    starts  initial values of the sums.
    Emit the body, then call `close` with the new values of the sums; `close` returns the final ones.
    """

    def __init__(self, b: ir.IRBuilder, limit: ir.Value, starts: Sequence[ir.Value], step: int = 1) -> None:
        self._b, self._limit, self._starts, self._step, self._before = b, limit, starts, step, b.block
        self._body, self._after = b.append_basic_block("loop"), b.append_basic_block("after")
        b.branch(self._body)
        b.position_at_end(self._body)
        self.number = b.phi(I64)
        self.sums = [b.phi(start.type) for start in starts]

    def close(self, running: Sequence[ir.Value]) -> Sequence[ir.Value]:
        """End the body; `running` are the sums after it."""
        b, end = self._b, self._b.block
        following = b.add(self.number, I64(self._step))
        phis, firsts = [self.number, *self.sums], [I64(0), *self._starts]
        for phi, first, value in zip(phis, firsts, [following, *running], strict=True):
            phi.add_incoming(first, self._before)
            phi.add_incoming(value, end)
        b.cbranch(b.icmp_signed("<", following, self._limit), self._body, self._after)
        b.position_at_end(self._after)
        return running


def fetch(b: ir.IRBuilder, address: ir.Value, lines: ir.Value) -> None:
    """Prefetch so many lines to the second-level cache; not on ARM, where nobody has measured it.

    Unrolled, the loop would take the registers that hold the addresses of inputs.
    """
    if for_arm(b):
        return
    with b.if_then(b.icmp_signed(">", lines, I64(0))):
        loop = Loop(b, lines, [])
        prefetch(b, b.add(address, b.mul(loop.number, I64(64))), 2, rolled=True)
        loop.close([])
