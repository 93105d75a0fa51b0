"""The only code that uses numba's private parts: the disk cache, compiler events, and forks while compiling.

Numba's own cache checks only the file of the cached function, so it would miss a change in a kernel that it
calls. Also, before every lookup it fills its registries with everything that can be compiled, which takes
half of a process's start. Here each program is one file: a checksum and the pickled compile result. The
checksum includes a stamp of all sources of compiled code, so a file that is damaged, incomplete or from other
sources counts as missing; it is checked before anything is unpickled.

Files are stored in NUMBA_CACHE_DIR, else in the user's cache folder, else beside the package. If none can be
written, every process compiles again. Beside the package is not the first choice, because pip does not remove
files it does not know. The folder is named by the stamp: all virtual environments with the same engine and the
same numba share it, and two versions side by side do not overwrite each other's programs. A file's name holds
what else must be the same: the processor, Python, LLVM and the types.

If a version of numba lacks one of the private names, its own cache is used, in a folder named by the stamp.
"""

import contextlib
import functools
import hashlib
import os
import pickle
import re
import secrets
import shutil
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
    from numba.core.bytecode import FunctionIdentity

    # Functions that one piece of source made, with other functions inside, have one name and a number: in
    # numba the first of a process is 1. Programs from two processes then define one symbol for two of them,
    # and where both are loaded, the linker takes the first for both: a model in BF16 was run by what an F32
    # one had brought, and gave NaN.
    FunctionIdentity._unique_ids = iter(functools.partial(secrets.randbits, 62), None)
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

#: the package's sources of compiled code
COMPILED = (
    "kernels/*.py",
    "formats/*.py",
    "families/*.py",
    "system/cpu.py",
    "numbers/code_layout.py",
    "numbers/int8_layout.py",
    "numbers/shapes.py",
    "numbers/unit_layout.py",
)
#: folders of programs that are kept, those used last: of other versions, levels or machines on one network disk
FOLDERS = 12
_FOLDER = re.compile(r"rwkv_engine-[0-9a-f]{12,16}")
_PACKAGE = Path(__file__).resolve().parent.parent
#: the compiler's library: linking a program from the cache takes 36 MB of its code, which is then unused
_COMPILER = get_library_name()
_CHECKSUM = 32


@functools.cache
def sources_stamp() -> str:
    """Digest of numba's version, the sources, the requested level, and whether AMX tiles are granted."""
    digest = hashlib.sha256(numba.__version__.encode())
    for source in sorted(source for pattern in COMPILED for source in _PACKAGE.glob(pattern)):
        digest.update(str(source.relative_to(_PACKAGE)).encode() + b"\0" + source.read_bytes())
    digest.update(f"{cpu.wanted_level()} {cpu.has_tiles()}".encode())
    return digest.hexdigest()


def keep(compiled: Any, function: Callable[..., Any]) -> None:
    """Store compiled `function` on disk and load it from there, if possible; `compiled` is its dispatcher."""
    if not Path(function.__code__.co_filename).is_file():
        return  # typed in interactively: changes cannot be detected
    compiled.compile = functools.partial(_interruptible, compiled.compile)
    if KEEPS and hasattr(compiled, "_cache"):
        compiled._cache = Kept(function)
        return
    place = folder()
    if place is None:
        return
    before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(place)
    try:
        compiled.enable_caching()
    except RuntimeError:  # no folder can be written
        pass
    finally:
        numba.config.CACHE_DIR = before


def _interruptible(compile: Callable[..., Any], sig: Any) -> Any:
    """`compile(sig)`; raises a KeyboardInterrupt that came while LLVM called numba back and was swallowed."""
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
    """Tell `listener`, a Listener, of everything that numba compiles from now on, if numba supports it."""
    if _register is not None:
        _register("numba:compile", listener)


@functools.cache
def folder() -> Path | None:
    """Folder of the programs of these sources: in the first place that can be written to, or None."""
    for place in _places():
        own = place / f"rwkv_engine-{sources_stamp()[:16]}"
        try:
            new = not own.is_dir()
            own.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=own).close()
            os.utime(own)
            if new:
                _forget(place)
        except OSError:
            continue
        return own
    return None


def _forget(place: Path) -> None:
    """Delete all but the FOLDERS folders that were used last."""
    found = sorted(
        (one for one in place.iterdir() if _FOLDER.fullmatch(one.name) and not one.is_symlink()),
        key=lambda one: one.stat().st_mtime,
    )
    for one in found[:-FOLDERS]:
        shutil.rmtree(one, ignore_errors=True)


def _places() -> Iterator[Path]:
    if numba.config.CACHE_DIR:
        yield Path(numba.config.CACHE_DIR)
    try:
        yield cache_folder() / "compiled"
    except OSError:
        pass  # no home folder
    yield _PACKAGE / "__pycache__"


class Kept:
    """The cached compile results of one function: the `_cache` of its dispatcher, with numba's interface."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    @property
    def cache_path(self) -> str | None:
        """The folder, for users."""
        return None if folder() is None else str(folder())

    def enable(self) -> None:
        """Does nothing: it is always enabled."""

    def disable(self) -> None:
        """Does nothing: it is never called."""

    def flush(self) -> None:
        """Does nothing: outdated files are replaced."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The cached result for the argument types `sig`; None: it must be compiled."""
        _name_the_runtime()
        try:
            content = self._file(sig, target_context.codegen()).read_bytes()
        except OSError:
            return None
        if content[:_CHECKSUM] != self._checksum(content[_CHECKSUM:]):
            return None
        try:
            found = rebuild(target_context, *pickle.loads(content[_CHECKSUM:]))
        except (ImportError, AttributeError):  # a type defined in another script
            return None
        give_back_code(_COMPILER)
        return found if found.signature.args == _types(sig) else None

    def save_overload(self, sig: Any, result: Any) -> None:
        """Store a new result, if possible."""
        if not result.lifted and not result.library.has_dynamic_globals:
            # on failure (full disk, interrupt before numba had the machine code) compile again next time
            with contextlib.suppress(OSError, RuntimeError):
                content = dumps(reduce(result))
                write_whole(self._file(sig, result.codegen), [self._checksum(content), content], sync=False)
        give_back_code(_COMPILER)

    def _file(self, sig: Any, codegen: Any) -> Path:
        """The path of the result for these types. Raises OSError if there is no folder."""
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
    """Distinguish types: their names, and for named tuples also the module.

    Outside this package, such as in another author's weight format, the module's source is included too.
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
    """Tell the linker the addresses of numba's functions that allocate arrays.

    Numba does this too, but then recompiles some of them, which loads 20 MB of compiler code.
    """
    for name, address in c_helpers.items():
        binding.add_symbol(name if name.startswith("_") else f"NRT_{name}", address)


if _acquire is not None and hasattr(os, "register_at_fork"):
    # a child forked while another thread compiles would wait forever for that thread's lock
    os.register_at_fork(before=_acquire, after_in_parent=_release, after_in_child=_release)
