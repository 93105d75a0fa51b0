"""Atomic operations on memory that several threads use, and waiting for it."""

import sys
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from rwkv_engine.system.cpu import ARCHITECTURE


@intrinsic
def add(typingctx: Any, address: Any, value: Any) -> Any:
    """Atomically add to the int64 at `address`; returns the old value."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        word = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", word, arguments[1], "acq_rel")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def change(typingctx: Any, address: Any, before: Any, after: Any) -> Any:
    """Atomically replace the int64 at `address` by `after` if it is `before`; returns the old value."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        word = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.extract_value(
            builder.cmpxchg(word, arguments[1], arguments[2], "acq_rel", "acquire"), 0
        )

    return types.int64(types.int64, types.int64, types.int64), codegen


@intrinsic
def load(typingctx: Any, address: Any) -> Any:
    """The int64 at `address`, with acquire ordering."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        word = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.load_atomic(word, "acquire", 8)

    return types.int64(types.int64), codegen


@intrinsic
def store(typingctx: Any, address: Any, value: Any) -> Any:
    """Write the int64 at `address`, with release ordering."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        word = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        builder.store_atomic(arguments[1], word, "release", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def pause(typingctx: Any) -> Any:
    """Tell the core that this is a polling loop."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        void, i32 = ir.VoidType(), ir.IntType(32)
        if ARCHITECTURE == "x86":
            kind = ir.FunctionType(void, [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse2.pause"), [])
        elif ARCHITECTURE == "arm":
            kind = ir.FunctionType(void, [i32])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.aarch64.hint"), [i32(1)])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def offer_core(typingctx: Any) -> Any:
    """Let another thread use this core (POSIX `sched_yield`; nothing elsewhere)."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        if sys.platform != "win32":
            kind = ir.FunctionType(ir.IntType(32), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), codegen
