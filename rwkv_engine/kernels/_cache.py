"""The one place that touches numba's private parts: programs kept on disk, what is told of its compiler, and
forks while it works.

Numba's own cache looks only at the file of the cached function, so a change in a kernel that it calls would
go unseen; and before every look it fills its registries with all that can be compiled, which takes half of
the start of a process. Here each program is one file: a checksum and the pickled compile result. The checksum
is keyed with a stamp of all sources that compiled code comes from, so that a file that is damaged, half
written or of other sources is simply not there; nothing of it is looked at before.

Files lie in NUMBA_CACHE_DIR, else in the user's cache folder, else beside the package; where nothing can be
written, programs are compiled anew in each process. Not beside the package first: what pip does not know
stays when it removes a package.

Where a version of numba lacks one of the private names, its own cache is used instead, in a folder of this
stamp's own.
"""

import contextlib
import functools
import hashlib
import os
import pickle
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
from llvmlite import binding
from llvmlite.utils import get_library_name

from rwkv_engine.system import cpu
from rwkv_engine.system.files import write_whole
from rwkv_engine.system.folders import cache_folder
from rwkv_engine.system.pages import give_back_code

try:
    from numba.core.compiler import CompileResult
    from numba.core.runtime._nrt_python import c_helpers
    from numba.core.serialize import dumps

    reduce, rebuild = CompileResult._reduce, CompileResult._rebuild
    KEEPS = True
except (ImportError, AttributeError):
    KEEPS = False
try:
    from numba.core import event

    Listener: Any = event.Listener
    _register: Any = event.register
except (ImportError, AttributeError):
    Listener, _register = object, None
try:
    from numba.core.compiler_lock import global_compiler_lock

    _acquire, _release = global_compiler_lock.acquire, global_compiler_lock.release
except (ImportError, AttributeError):
    _acquire = _release = None

#: folders and files of the package whose sources end in compiled code
COMPILED = (
    "kernels/*.py",
    "formats/*.py",
    "families/*.py",
    "system/cpu.py",
    "numbers/int4_layout.py",
    "numbers/int8_layout.py",
    "numbers/shapes.py",
)
_PACKAGE = Path(__file__).resolve().parent.parent
#: the library with the compiler: linking a program from the cache takes 36 MB of its code, nothing after that
#: takes any
_COMPILER = get_library_name()
_CHECKSUM = 32


@functools.cache
def sources_stamp() -> str:
    """Digest of all that compiled code comes from besides the processor: numba, the sources, a level that was
    asked for, and what the system grants.
    """
    digest = hashlib.sha256(numba.__version__.encode())
    for source in sorted(source for pattern in COMPILED for source in _PACKAGE.glob(pattern)):
        digest.update(str(source.relative_to(_PACKAGE)).encode() + b"\0" + source.read_bytes())
    digest.update(f"{cpu.wanted_level()} {cpu.has_tiles()}".encode())
    return digest.hexdigest()


def keep(compiled: Any, function: Callable[..., Any]) -> None:
    """Keep on disk what is compiled of `function`, whose dispatcher is `compiled`, and take it from there;
    else change nothing.
    """
    if not Path(function.__code__.co_filename).is_file():
        return  # it was typed in: there is nothing by which a change could be seen
    compiled.compile = functools.partial(_interruptible, compiled.compile)
    if KEEPS and hasattr(compiled, "_cache"):
        compiled._cache = Kept(function)
        return
    place = folder()
    if place is None:
        return
    before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(place / sources_stamp()[:16])
    try:
        compiled.enable_caching()
    except RuntimeError:  # numba's word for: no folder can be written
        pass
    finally:
        numba.config.CACHE_DIR = before


def _interruptible(compile: Callable[..., Any], sig: Any) -> Any:
    """`compile(sig)`, which raises KeyboardInterrupt also where it came while LLVM called numba back: from
    there it does not get out.
    """
    lost, before = [], sys.unraisablehook

    def hear(about: Any) -> None:
        if about.exc_type is KeyboardInterrupt:
            lost.append(about.exc_type)
        else:
            before(about)

    sys.unraisablehook = hear
    try:
        done = compile(sig)
    finally:
        sys.unraisablehook = before
    if lost:
        raise KeyboardInterrupt
    return done


def listen(listener: Any) -> None:
    """Have `listener`, a Listener, told of everything that numba compiles from now on, if this version of it
    tells.
    """
    if _register is not None:
        _register("numba:compile", listener)


@functools.cache
def folder() -> Path | None:
    """Where this package's programs are kept: the first of the places that can be written to, if there is
    one.
    """
    own = f"rwkv_engine-{hashlib.sha256(str(_PACKAGE).encode()).hexdigest()[:12]}"
    for place in _places():
        try:
            (place / own).mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=place / own).close()
        except OSError:
            continue
        return place / own
    return None


def _places() -> Iterator[Path]:
    if numba.config.CACHE_DIR:
        yield Path(numba.config.CACHE_DIR)
    try:
        yield cache_folder() / "compiled"
    except OSError:
        pass  # a user without a home
    yield _PACKAGE / "__pycache__"


class Kept:
    """The compile results of one function on disk, as numba asks for them: `_cache` of its dispatcher."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    @property
    def cache_path(self) -> str | None:
        """The folder, for people."""
        return None if folder() is None else str(folder())

    def enable(self) -> None:
        """It always is."""

    def disable(self) -> None:
        """Nobody asks."""

    def flush(self) -> None:
        """Nothing to do: what no longer fits is replaced."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compile result kept for the argument types `sig`; None: it must be compiled."""
        _name_the_runtime()
        try:
            content = self._file(sig, target_context.codegen()).read_bytes()
        except OSError:
            return None
        if content[:_CHECKSUM] != self._checksum(content[_CHECKSUM:]):
            return None
        try:
            found = rebuild(target_context, *pickle.loads(content[_CHECKSUM:]))
        except (ImportError, AttributeError):  # a type of another script's own, which this one has not
            return None
        give_back_code(_COMPILER)
        return found if found.signature.args == _types(sig) else None

    def save_overload(self, sig: Any, result: Any) -> None:
        """Keep what was just compiled, if that can be done."""
        if not result.lifted and not result.library.has_dynamic_globals:
            # what goes wrong, a full disk say, or an interrupt that kept numba from noting the machine code,
            # costs compiling next time
            with contextlib.suppress(OSError, RuntimeError):
                content = dumps(reduce(result))
                write_whole(self._file(sig, result.codegen), [self._checksum(content), content], sync=False)
        give_back_code(_COMPILER)

    def _file(self, sig: Any, codegen: Any) -> Path:
        """Where the result for these types is or will be. Raises OSError if there is no folder."""
        place = folder()
        if place is None:
            raise OSError("there is no folder for compiled programs")
        about = *_names(_types(sig)), *map(str, codegen.magic_tuple()), sys.version, binding.llvm_version_info
        name = f"{self._function.__module__.rpartition('.')[2]}.{self._function.__qualname__}"
        name = "".join(letter if letter.isalnum() or letter in "._" else "-" for letter in name)[:80]
        return place / f"{name}-{hashlib.sha256(repr(about).encode()).hexdigest()[:16]}.nbc"

    def _checksum(self, content: bytes) -> bytes:
        source = Path(self._function.__code__.co_filename).resolve()
        own = b"" if _PACKAGE in source.parents else source.read_bytes()
        return hashlib.sha256(b"\0".join((sources_stamp().encode(), own, content))).digest()


def _types(sig: Any) -> tuple[Any, ...]:
    """The argument types of what numba calls a signature."""
    return tuple(getattr(sig, "args", sig))


def _names(kinds: tuple[Any, ...]) -> Iterator[str]:
    """What tells types apart: their names; of named tuples, whose names are short, also the modules, and the
    sources of those that are not this package's, where a weight format of somebody else has its type and its
    kernels.
    """
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


@functools.cache
def _name_the_runtime() -> None:
    """Tell the linker where numba's functions that allocate arrays are.

    Numba does so too, but then compiles some of them anew, which brings 20 MB of the compiler into memory.
    """
    for name, address in c_helpers.items():
        binding.add_symbol(name if name.startswith("_") else f"NRT_{name}", address)


if _acquire is not None and hasattr(os, "register_at_fork"):
    # a child that is forked while another thread compiles would wait for that thread, which it has not, at
    # its first program
    os.register_at_fork(before=_acquire, after_in_parent=_release, after_in_child=_release)
