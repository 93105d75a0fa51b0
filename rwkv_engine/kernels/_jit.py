"""All compile flags; `kernels._cache` stores compiled programs on disk.

`kernel`      for functions called by other compiled code.
`viewing`     the same, for functions that return an array.
`inlined`     the same, for functions that become part of their callers.
`ordered`     the same, for formulas whose sums must not be reordered.
`exact`       the same, for rounding that must be equal on every machine: no fused operations either.
`program`     `kernel` for functions that Python calls; their machine code is cached on disk.
`standalone`  the same, but not cached, and may create arrays.

All release the GIL, check no index and raise nothing. Floating-point sums may be reordered and contracted to
fused multiply-adds; NaN and infinity keep their meaning, because masks and guards need them (so never
`fastmath=True`).
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numba

from rwkv_engine.errors import UnsupportedSystem
from rwkv_engine.kernels._cache import keep

if numba.config.DISABLE_JIT:
    raise UnsupportedSystem(
        "numba's compiler is switched off (NUMBA_DISABLE_JIT), and kernels do not run as plain Python; unset it"
    )

FASTMATH = {"reassoc", "contract", "nsz"}

Function = TypeVar("Function", bound=Callable[..., Any])


def _flags(fastmath: set[str] | bool, inner: bool, counted: bool = False) -> dict[str, Any]:
    """Options for numba.

    inner    no entry point for Python, which saves a fifth of the compile time.
    counted  numba counts references to arrays: a call for every array passed or sliced, though none is freed.
    """
    return {
        "nopython": True,
        "fastmath": fastmath,
        "nogil": True,
        "error_model": "numpy",
        "boundscheck": False,
        "no_cpython_wrapper": inner,
        "no_cfunc_wrapper": True,
        "_nrt": counted,
    }


#: options of a `kernel`, for numba's `overload`: with other options, kernels called in it compile again
KERNEL = _flags(FASTMATH, inner=True)


def _compiled(function: Function, fastmath: set[str] | bool, inner: bool, counted: bool = False) -> Any:
    """`function`, compiled with these `_flags`."""
    return numba.jit(**_flags(fastmath, inner, counted))(function)


def kernel(function: Function) -> Function:
    """Compile `function` with numba, in nopython mode, for other compiled functions."""
    return _compiled(function, FASTMATH, inner=True)


def inlined(function: Function) -> Function:
    """`kernel` inlined in its callers: for one that passes on all arrays, a second to compile otherwise."""
    return numba.jit(**KERNEL, inline="always")(function)


def viewing(function: Function) -> Function:
    """`kernel` for functions that return arrays, which numba requires to count references."""
    return _compiled(function, FASTMATH, inner=True, counted=True)


def ordered(function: Function) -> Function:
    """`kernel` for formulas whose sums must keep their written order: rounding errors cancel in it."""
    return _compiled(function, {"contract"}, inner=True)


def exact(function: Function) -> Function:
    """`kernel` in which each operation rounds on its own, as written.

    False must be given explicitly: otherwise a function inherits its caller's `fastmath`.
    """
    return _compiled(function, False, inner=True)


def standalone(function: Function) -> Function:
    """`kernel` that Python may call too and that may create arrays, not cached: for tests and benchmarks."""
    return _compiled(function, FASTMATH, inner=False, counted=True)


def program(function: Function) -> Function:
    """Compile `function` for Python at its first call with each set of argument types; cache it on disk."""
    compiled = _compiled(function, FASTMATH, inner=False)
    keep(compiled, function)
    return compiled
