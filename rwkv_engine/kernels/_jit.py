"""The one place with compile flags; what is compiled is kept on disk by `kernels._cache`.

`kernel`   compiles a function for use inside other compiled code.
`viewing`  the same for one that returns an array.
`inlined`  the same for one that becomes a part of its callers.
`ordered`  the same for formulas whose sums must not be reordered.
`exact`    the same for roundings that must come out alike on every machine: nothing is fused either.
`program`  `kernel` for the functions that Python calls; their machine code is kept on disk. `standalone`: not
           kept, may make arrays.

All release the GIL, wrap no index and raise nothing. Floating-point sums may be reordered and contracted into
fused multiply-adds; NaN and infinity keep their meaning, because masks and guards rely on them (so never
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
    """Options of numba; an `inner` function gets no entry for Python, whose code takes a fifth of the time to
    compile.

    counted  whether numba counts references to arrays: a call for every array that is handed over or cut,
             though none is ever freed.
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


#: options of a `kernel`, for numba's `overload`: a kernel that is called with other ones in force is compiled
#: once more
KERNEL = _flags(FASTMATH, inner=True)


def _compiled(function: Function, fastmath: set[str] | bool, inner: bool, counted: bool = False) -> Any:
    """`function` compiled, with `_flags` of the rest."""
    return numba.jit(**_flags(fastmath, inner, counted))(function)


def kernel(function: Function) -> Function:
    """Compile `function` with numba, in nopython mode, for other compiled functions."""
    return _compiled(function, FASTMATH, inner=True)


def inlined(function: Function) -> Function:
    """`kernel` that numba puts into its callers: for one that hands all arrays of a model on, a second to
    compile as a function.
    """
    return numba.jit(**KERNEL, inline="always")(function)


def viewing(function: Function) -> Function:
    """`kernel` for functions that return arrays, which numba allows only where it counts references."""
    return _compiled(function, FASTMATH, inner=True, counted=True)


def ordered(function: Function) -> Function:
    """`kernel` for formulas whose sums must stay in the order in which they are written, because rounding
    errors cancel in it.
    """
    return _compiled(function, {"contract"}, inner=True)


def exact(function: Function) -> Function:
    """`kernel` without any freedom: each operation rounds on its own, as written.

    The False must be said: a function that says nothing about it takes its caller's `fastmath`.
    """
    return _compiled(function, False, inner=True)


def standalone(function: Function) -> Function:
    """`kernel` that Python may call as well, that may make arrays, and that is not kept on disk: for tests
    and benchmarks.
    """
    return _compiled(function, FASTMATH, inner=False, counted=True)


def program(function: Function) -> Function:
    """Compile `function` for Python, on its first call with each set of argument types, and keep the result
    on disk.
    """
    compiled = _compiled(function, FASTMATH, inner=False)
    keep(compiled, function)
    return compiled
