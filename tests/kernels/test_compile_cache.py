"""Programs kept on disk: damaged, of other sources, on a full disk, and with another numba."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rwkv_engine.kernels import _cache

KEPT = """
import sys
from numba.core import event
from rwkv_engine.kernels.calling import ring
compiled = []
class Listener(event.Listener):
    def on_start(self, event): compiled.append(1)
    def on_end(self, event): pass
event.register("numba:compile", Listener())
assert ring(0, 0, True) == 0
print("compiled" if compiled else "kept")
"""


def start(folder, code=KEPT, **variables):
    """What a new process with this folder of compiled programs prints."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(folder)} | variables
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.returncode == 0, (done.returncode, done.stderr)
    return done.stdout.strip()


@pytest.mark.slow
def test_a_damaged_compile_cache_is_an_empty_one(tmp_path):
    assert [start(tmp_path), start(tmp_path)] == ["compiled", "kept"]
    (data,) = tmp_path.rglob("*.nbc")
    whole = data.read_bytes()
    code = whole.find(b"\x7fELF") if sys.platform == "linux" else len(whole) // 2
    bits = bytes(b ^ 255 for b in whole[code : code + 4096])
    for damaged in (
        b"",
        whole[:-50],
        b"\0" * 400,
        whole + b"\0",
        whole[:-1] + bytes([whole[-1] ^ 1]),
        bytes([whole[0] ^ 1]) + whole[1:],
        whole[:code] + bits + whole[code + 4096 :],
    ):
        data.write_bytes(damaged)
        assert [start(tmp_path), start(tmp_path)] == ["compiled", "kept"]


def test_programs_of_other_sources_are_not_kept_programs(tmp_path):
    assert [start(tmp_path), start(tmp_path)] == ["compiled", "kept"]
    other = "import numba\nnumba.__version__ += '.another'\n" + KEPT
    assert [start(tmp_path, other), start(tmp_path, other), start(tmp_path)] == [
        "compiled",
        "kept",
        "kept",
    ]
    assert len(list(tmp_path.rglob("*.nbc"))) == 2  # neither takes the other's place


def test_two_installations_of_one_engine_share_their_programs(tmp_path):
    package = Path(_cache.__file__).resolve().parents[1]
    for name in ("one", "two"):
        shutil.copytree(package, tmp_path / name / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    elsewhere = "from rwkv_engine.kernels import _cache\nassert sys.argv[1] in _cache.__file__\n"
    code = KEPT.replace("import sys\n", "import sys\nsys.path.insert(0, sys.argv[1])\n" + elsewhere)
    ran = [
        start(tmp_path / "programs", code.replace("sys.argv[1]", repr(str(tmp_path / name))))
        for name in ("one", "two", "one")
    ]
    assert ran == ["compiled", "kept", "kept"]


def test_of_many_folders_those_used_last_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(_cache, "FOLDERS", 2)
    for age, name in enumerate("rwkv_engine-" + letter * 16 for letter in "abcd"):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    for other in ("rwkv_engine", "rwkv_engine-notes", "a" * 16):
        (tmp_path / other).mkdir()
        os.utime(tmp_path / other, (0, 0))
    _cache._forget(tmp_path)
    left = {one.name for one in tmp_path.iterdir()}
    assert left == {
        "rwkv_engine-" + "a" * 16,
        "rwkv_engine-" + "b" * 16,
        "rwkv_engine",
        "rwkv_engine-notes",
        "a" * 16,
    }


FULL = """
import errno, os
from rwkv_engine.kernels import _cache
write = os.write
def full(*about, **more): raise OSError(errno.ENOSPC, "No space left on device")
for module, name in ((os, "replace"), (os, "fdopen"), (_cache, "write_whole")):
    plain = getattr(module, name)
    setattr(module, name, full)
    from rwkv_engine.kernels._jit import program
    from rwkv_engine.kernels import calling
    again = program(calling.ring.py_func)
    assert again(0, 0, True) == 0
    setattr(module, name, plain)
print("went on without")
"""


def test_a_full_disk_keeps_nothing_and_stops_nothing(tmp_path):
    assert start(tmp_path, FULL) == "went on without"
    assert not list(tmp_path.rglob("*.nbc")) and not list(tmp_path.rglob("*.part"))
    assert start(tmp_path) == "compiled"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="a small disk is mounted by root alone")
def test_on_a_disk_that_is_full_programs_are_compiled_in_each_process(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True
    ).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        with pytest.raises(OSError, match="No space"):
            (folder / "filler").write_bytes(bytes(1 << 20))
        assert [start(folder), start(folder)] == ["compiled", "compiled"]
    finally:
        subprocess.run(["umount", folder], check=True)


#: names of numba's own parts that `kernels._cache` uses, each of which a later version may have no more
PRIVATE = (
    "numba.core.compiler.CompileResult._reduce",
    "numba.core.compiler.CompileResult._rebuild",
    "numba.core.runtime._nrt_python.c_helpers",
    "numba.core.serialize.dumps",
    "numba.core.event.Listener",
    "numba.core.event.register",
    "numba.core.compiler_lock.global_compiler_lock",
)
WITHOUT = """
import importlib, sys
place, _, name = sys.argv[1].rpartition(".")
owner, _, kind = place.rpartition(".") if place.endswith("CompileResult") else (place, "", "")
import numba
owner = importlib.import_module(owner)
owner = getattr(owner, kind) if kind else owner
kept = getattr(owner, name)
import numba.core.compiler, numba.core.caching, numba.core.dispatcher
class Hidden:
    "Gone for this package alone: numba itself goes on using it."
def hide(frame, event, about):
    if event == "call" and frame.f_code.co_filename.endswith("kernels/_cache.py") and frame.f_code.co_name == "<module>":
        delattr(owner, name)
    if event == "return" and frame.f_code.co_filename.endswith("kernels/_cache.py") and frame.f_code.co_name == "<module>":
        setattr(owner, name, kept)
        sys.setprofile(None)
sys.setprofile(hide)
from rwkv_engine.kernels import _cache
sys.setprofile(None)
from rwkv_engine.kernels.calling import ring
from rwkv_engine.running import compiling
compiling.watch_compiling(lambda *facts: None)
assert ring(0, 0, True) == 0
print(type(ring._cache).__module__.partition(".")[0], sum(ring.stats.cache_hits.values()))
"""


@pytest.mark.slow_but("dumps")
@pytest.mark.parametrize("name", PRIVATE)
def test_without_a_private_name_of_numba_its_own_cache_keeps_programs(tmp_path, name):
    own = name.startswith(("numba.core.compiler.", "numba.core.runtime", "numba.core.serialize"))
    code = WITHOUT.replace("sys.argv[1]", repr(name))
    whose = "numba" if own else "rwkv_engine"
    assert [start(tmp_path, code), start(tmp_path, code)] == [f"{whose} 0", f"{whose} 1"]


def test_numba_s_private_parts_are_used_in_one_file():
    package = Path(_cache.__file__).resolve().parents[1]
    allowed = {"numba.core.cgutils"}  # of its documented way to write intrinsics
    users = {
        path.name
        for path in package.rglob("*.py")
        for place, names in re.findall(
            r"^ *from (numba\.core\S*) import (.+)$", path.read_text(), re.MULTILINE
        )
        for name in names.split(",")
        if f"{place}.{name.strip()}" not in allowed
    }
    assert users == {"_cache.py"}


def test_no_two_processes_give_functions_the_same_name(tmp_path):
    """They did: programs of two processes, loaded into a third, then had symbols in common, and one ran the
    other's functions.
    """
    code = "from rwkv_engine.kernels.calling import ring\nfrom numba.core.bytecode import FunctionIdentity\n"
    code += "print(FunctionIdentity.from_function(ring).unique_name)"
    assert start(tmp_path, code) != start(tmp_path, code)
