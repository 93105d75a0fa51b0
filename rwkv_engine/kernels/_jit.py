"""The one place with compile flags, and with the rules of the compile cache.

`kernel`   compiles a function for use inside other compiled code.
`viewing`  the same for one that returns an array.
`inlined`  the same for one that becomes a part of its callers.
`ordered`  the same for formulas whose sums must not be reordered.
`exact`    the same for roundings that must come out alike on every machine: nothing is fused either.
`program`  `kernel` for the functions that Python calls; their machine code is kept on disk. `standalone`: not kept, may make arrays.

All release the GIL, wrap no index and raise nothing. Floating-point sums may be reordered and contracted into fused
multiply-adds; NaN and infinity keep their meaning, because masks and guards rely on them (so never `fastmath=True`).

Numba's own cache looks only at the file of the cached function, so a change in a kernel that it calls would go unseen.
Here every program's stamp covers all sources that compiled code comes from. The cache lies in NUMBA_CACHE_DIR, else in the user's cache
folder, else beside the package; where nothing can be written, programs are compiled anew in each process. Not beside the package first:
what pip does not know stays when it removes a package, and the folder that so stays hides one that is installed from its sources.
"""

import functools
import hashlib
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numba
from llvmlite import binding
from llvmlite.utils import get_library_name
from numba.core import caching
from numba.core.runtime import _nrt_python

from rwkv_engine.system import cpu
from rwkv_engine.system.pages import give_back_code

FASTMATH = {"reassoc", "contract", "nsz"}
#: folders and files of the package whose sources end in compiled code
COMPILED = (
    "kernels/*.py",
    "formats/*.py",
    "families/*.py",
    "system/cpu.py",
    "numbers/int8_layout.py",
    "numbers/shapes.py",
)

#: the library with the compiler: linking a program from the cache takes 36 MB of its code, nothing after that takes any
_COMPILER = get_library_name()
#: what unpickling raises for bytes that are cut off, changed, or name what is not there
_UNREADABLE = (
    pickle.UnpicklingError,
    EOFError,
    ImportError,
    AttributeError,
    LookupError,
    ValueError,
    TypeError,
)

Function = TypeVar("Function", bound=Callable[..., Any])


def _flags(fastmath: set[str] | bool, inner: bool, counted: bool = False) -> dict[str, Any]:
    """Options of numba; an `inner` function gets no entry for Python, whose code takes a fifth of the time to compile.

    counted  whether numba counts references to arrays: a call for every array that is handed over or cut, though none is ever freed.
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


#: options of a `kernel`, for numba's `overload`: a kernel that is called with other ones in force is compiled once more
KERNEL = _flags(FASTMATH, inner=True)


def _compiled(function: Function, fastmath: set[str] | bool, inner: bool, counted: bool = False) -> Any:
    """`function` compiled, with `_flags` of the rest."""
    return numba.jit(**_flags(fastmath, inner, counted))(function)


def kernel(function: Function) -> Function:
    """Compile `function` with numba, in nopython mode, for other compiled functions."""
    return _compiled(function, FASTMATH, inner=True)


def inlined(function: Function) -> Function:
    """`kernel` that numba puts into its callers: for one that hands all arrays of a model on, a second to compile as a function."""
    return numba.jit(**KERNEL, inline="always")(function)


def viewing(function: Function) -> Function:
    """`kernel` for functions that return arrays, which numba allows only where it counts references."""
    return _compiled(function, FASTMATH, inner=True, counted=True)


def ordered(function: Function) -> Function:
    """`kernel` for formulas whose sums must stay in the order in which they are written, because rounding errors cancel in it."""
    return _compiled(function, {"contract"}, inner=True)


def exact(function: Function) -> Function:
    """`kernel` without any freedom: each operation rounds on its own, as written.

    The False must be said: a function that says nothing about it takes its caller's `fastmath`.
    """
    return _compiled(function, False, inner=True)


def standalone(function: Function) -> Function:
    """`kernel` that Python may call as well, that may make arrays, and that is not kept on disk: for tests and benchmarks."""
    return _compiled(function, FASTMATH, inner=False, counted=True)


def program(function: Function) -> Function:
    """Compile `function` for Python, on its first call with each set of argument types, and keep the result on disk."""
    compiled = _compiled(function, FASTMATH, inner=False)
    try:
        compiled._cache = _PackageCache(function)
    except RuntimeError:  # numba's word for: no folder can be written; compile every time then
        pass
    return compiled


@functools.cache
def sources_stamp() -> str:
    """Digest of all that compiled code comes from besides the processor: the sources, a level that was asked for, and what the
    system grants."""
    package = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for source in sorted(source for pattern in COMPILED for source in package.glob(pattern)):
        digest.update(str(source.relative_to(package)).encode() + b"\0" + source.read_bytes())
    digest.update(f"{cpu.wanted_level()} {cpu.has_tiles()}".encode())
    return digest.hexdigest()


class _Stamped:
    """Mixed into numba's cache locators: fresh means that none of those sources has changed."""

    def get_source_stamp(self) -> str:
        return sources_stamp()


class _Provided(_Stamped, caching.UserProvidedCacheLocator):
    pass


class _Beside(_Stamped, caching.InTreeCacheLocator):
    pass


class _UserWide(_Stamped, caching.UserWideCacheLocator):
    pass


class _PackageImplementation(caching.CompileResultCacheImpl):
    _locator_classes = [_Provided, _UserWide, _Beside]


@functools.cache
def _name_the_runtime() -> None:
    """Tell the linker where numba's functions that allocate arrays are. Numba does so too, but then compiles some of them anew, which
    brings 20 MB of the compiler into memory."""
    for name, address in _nrt_python.c_helpers.items():
        binding.add_symbol(name if name.startswith("_") else f"NRT_{name}", address)


class _Files(caching.IndexDataCacheFile):
    """Numba's files of one program, of which none that is damaged, or was written for other sources, can stop a start: an index names
    types, and those of an older version of this package may be gone."""

    def __init__(self, folder: str, name: str) -> None:
        super().__init__(folder, name, sources_stamp())
        self._version = f"{numba.__version__} {sources_stamp()}"  # read before anything else of an index

    def load(self, key: Any) -> Any:
        """What was kept for `key`; None: nothing, or nothing that can be read."""
        try:
            return super().load(key)
        except _UNREADABLE:
            return None

    def _load_index(self) -> dict[Any, str]:
        try:
            return dict(super()._load_index())
        except _UNREADABLE:
            return {}


class _PackageCache(caching.FunctionCache):
    """Numba's cache, without what it does before every look: filling its registries with all that can be compiled, which takes half
    of the start of a process. Machine code from the disk needs nothing of it but the runtime that allocates arrays, and the compiler
    fills them by itself before it begins."""

    _impl_class = _PackageImplementation

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file = _Files(self._cache_path, self._impl.filename_base)

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        """Text in place of types, so that an index can be read where a type that it names is missing."""
        return tuple(_names(sig)), *super()._index_key(sig, codegen)[1:]

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compile result kept for the argument types `sig`; None: it must be compiled."""
        _name_the_runtime()
        found = None
        with self._guard_against_spurious_io_errors():
            found = self._load_overload(sig, target_context)
        if found is not None:
            give_back_code(_COMPILER)
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep what was just compiled."""
        super().save_overload(sig, data)
        give_back_code(_COMPILER)


def _names(kinds: Any) -> Iterator[str]:
    """What tells argument types apart: their names; of named tuples, whose names are short, also the modules, and the sources of those
    that are not this package's, where a weight format of somebody else has its type and its kernels."""
    for kind in kinds:
        yield str(kind)
        if hasattr(kind, "instance_class"):
            yield _origin(kind.instance_class.__module__)
        yield from _names(getattr(kind, "types", None) or ((kind.inner,) if hasattr(kind, "inner") else ()))


@functools.cache
def _origin(module: str) -> str:
    source = getattr(sys.modules.get(module), "__file__", None)
    if module.startswith(__name__.partition(".")[0] + ".") or source is None:
        return module
    return f"{module} {hashlib.sha256(Path(source).read_bytes()).hexdigest()}"
