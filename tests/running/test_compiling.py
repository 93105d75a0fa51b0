"""Waiting for the compiler: what is told meanwhile, and machines on which nothing can be kept."""

import io
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from numba.core import event
from rwkv_engine_cli.progress import QUIET, Compiling

import rwkv_engine
from rwkv_engine.kernels import _cache
from rwkv_engine.kernels._jit import kernel, standalone
from rwkv_engine.kernels.calling import ring
from rwkv_engine.running import compiling


def test_compiling_is_told_while_it_lasts_and_at_its_end(monkeypatch):
    monkeypatch.setattr(compiling, "PATIENCE", 0.0)
    told = []
    inner = kernel(lambda x: x * x)
    outer = standalone(lambda x: inner(x) + 1)
    with event.install_listener("numba:compile", compiling.Watcher(lambda *facts: told.append(facts))):
        assert outer(3.0) == 10
        first = list(told)
        assert outer(4.0) == 17
    assert told == first  # nothing was compiled the second time
    assert [done for _, _, done in told] == [*[False] * (len(told) - 1), True] and len(told) > 1
    assert told[-1][0] == 2 and told[-1][1] > 0


def _compiles(function):
    with event.trigger_event("numba:compile", data={"dispatcher": function}):
        time.sleep(0.05)


def test_the_first_compiling_of_a_program_is_one_line_in_the_log_unless_a_hook_is_told(monkeypatch, caplog):
    monkeypatch.setattr(compiling, "PATIENCE", 0.0)
    monkeypatch.setattr(compiling, "_log", compiling._Log())
    before = compiling.watcher().tell
    told = []
    try:
        rwkv_engine.watch_compiling(lambda *facts: told.append(facts))
        _compiles(ring)
        assert told and told[-1][2] and not caplog.records
        rwkv_engine.watch_compiling(None)
        told.clear()
        _compiles(standalone(lambda x: x))  # this module's: not the engine's
        assert not caplog.records
        for _ in range(2):
            _compiles(ring)
        assert not told and [record.name for record in caplog.records] == ["rwkv_engine"]
        assert "compiles for this processor" in caplog.text
    finally:
        rwkv_engine.watch_compiling(before)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_on_a_terminal_one_line_counts(monkeypatch):
    out = Terminal()
    monkeypatch.setattr(sys, "stderr", out)
    monkeypatch.setenv("TERM", "xterm")
    say = Compiling()
    say(3, 1.0, False)
    say(9, 20.0, True)
    assert (
        out.getvalue().count("\n") == 1
        and out.getvalue().count("\r") == 2
        and "9 functions in 20 s" in out.getvalue()
    )


@pytest.mark.parametrize("term", ["", "dumb"])
def test_without_a_terminal_that_can_write_over_a_line_there_are_few_lines(monkeypatch, term):
    out = Terminal() if term else io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    monkeypatch.setenv("TERM", term)
    say = Compiling()
    for second in range(65):
        say(second, float(second), second == 64)
    lines = out.getvalue().splitlines()
    assert "\r" not in out.getvalue() and len(lines) == 3 and all("compiling" in line for line in lines)
    assert f"{QUIET:.0f} s" in lines[1]


def test_warmup_names_every_program_and_says_when_it_is_ready():
    done = subprocess.run(
        [sys.executable, "-m", "rwkv_engine_cli.app", "warmup"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line[:6] for line in lines[::2]] == ["1 of 3", "2 of 3", "3 of 3"] and "RWKV-7 in bf16" in lines[
        0
    ]
    assert all("ready after" in line for line in lines[1::2])


def test_after_the_programs_of_a_model_ran_nothing_is_left_to_compile(embedded):
    for program in compiling.programs(embedded):
        program.run()
    told = []
    with event.install_listener(
        "numba:compile", compiling.Watcher(lambda *facts: told.append(facts))
    ) as listener:
        list(embedded.generate("Once upon a time", max_tokens=3, sampling=rwkv_engine.Sampling(seed=1)))
        embedded.feed(range(1, 100), embedded.new_state(), every=True)
        assert listener._began == 0.0 and told == []


def test_the_cache_notices_changes_of_every_module_that_kernels_take_numbers_from():
    package = Path(_cache.__file__).resolve().parents[1]
    stamped = {path for pattern in _cache.COMPILED for path in package.glob(pattern)}
    named = r"^from rwkv_engine\.?(\S*) import (\w+)"
    sources = [path.read_text() for path in package.glob("kernels/*.py")]
    found = {
        (package.joinpath(*place.split(".")), name)
        for s in sources
        for place, name in re.findall(named, s, re.MULTILINE)
    }
    taken = {
        file
        for place, name in found
        for file in (place.with_suffix(".py"), place / f"{name}.py")
        if file.is_file()
    }
    assert {package / "system/cpu.py", package / "numbers/int8_layout.py"} <= taken
    assert taken - stamped == {
        package / "errors.py",
        package / "system/files.py",
        package / "system/folders.py",
        package / "system/pages.py",
    }  # of which nothing is compiled


def test_the_cache_lies_in_the_users_folder_and_not_where_pip_would_leave_it_behind(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    environment |= {
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "LOCALAPPDATA": str(tmp_path),
    }
    command = [
        sys.executable,
        "-c",
        "from rwkv_engine.families.program import step; print(step._cache.cache_path)",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=True)
    assert tmp_path in Path(done.stdout.strip()).parents


FROM_DISK = """
import sys
from numba.core.cpu import CPUContext
filled, fill = [], CPUContext.load_additional_registries
CPUContext.load_additional_registries = lambda self: (filled.append(self), fill(self))
import rwkv_engine
text = "".join(step.text for step in rwkv_engine.load().generate("Once", max_tokens=5, sampling=rwkv_engine.Sampling(seed=1)))
print(len(filled) > 0, text)
"""


@pytest.mark.slow
def test_what_is_kept_on_disk_starts_without_the_compiler_s_registries(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    runs = [
        subprocess.run(
            [sys.executable, "-c", FROM_DISK], capture_output=True, text=True, timeout=300, env=environment
        )
        for _ in range(2)
    ]
    assert [done.returncode for done in runs] == [0, 0], runs[-1].stderr
    (first, text), (second, again) = (done.stdout.split(maxsplit=1) for done in runs)
    assert first == "True" and second == "False" and text == again


EVERY_FAMILY = """
import sys
from numba.core import event
import rwkv_engine
compiled = []
class Listener(event.Listener):
    def on_start(self, event): compiled.append(event.data["dispatcher"].py_func.__name__)
    def on_end(self, event): pass
event.register("numba:compile", Listener())
tokenizer, *paths = sys.argv[1:]
for path in paths:
    for weights in (None, "int8"):
        model = rwkv_engine.load(path, weights, 1, tokenizer=tokenizer)
        model.feed([1, 2, 3], model.new_state())
print(compiled)
"""


@pytest.mark.slow
def test_no_family_is_compiled_by_a_second_process(checkpoints, tokenizer_file):
    paths = [checkpoints(version)[0] for version in ("4", "5.2", "6", "7")]
    command = [sys.executable, "-c", EVERY_FAMILY, *map(str, (tokenizer_file, *paths))]
    runs = [subprocess.run(command, capture_output=True, text=True, timeout=900) for _ in range(2)]
    assert [done.returncode for done in runs] == [0, 0], runs[-1].stderr
    assert runs[1].stdout == "[]\n"


READ_ONLY = """
import tempfile
def refuse(**about): raise PermissionError(13, "read-only file system")
tempfile.TemporaryFile = refuse
from rwkv_engine.families.program import step
from rwkv_engine.kernels.calling import ring
import rwkv_engine.tools.quantize as q
print(step._cache.cache_path, ring(0, 0, True))
try: q.cache_folder().mkdir(parents=True)
except OSError as error: print(type(error).__name__)
"""


def test_where_nothing_can_be_written_programs_are_not_kept_and_nothing_fails():
    environment = {
        **os.environ,
        "HOME": "/dev/null",
        "XDG_CACHE_HOME": "",
        "NUMBA_CACHE_DIR": "/dev/null/numba",
    }
    done = subprocess.run(
        [sys.executable, "-c", READ_ONLY], capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["None", "0", "NotADirectoryError"]


def test_a_user_without_a_home_has_no_cache_and_no_failure(monkeypatch, checkpoints):
    from pathlib import Path

    from rwkv_engine.checkpoints import open_checkpoint
    from rwkv_engine.tools.quantize import cached

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: Path("~/x"))
    checkpoint = open_checkpoint(checkpoints("7")[0])
    assert cached(checkpoint, "int8") is checkpoint


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux alone binds a process to processors")
def test_with_one_core_there_is_one_lane():
    program = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); import rwkv_engine; print(rwkv_engine.load().lanes)"
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120).stdout
        == "1\n"
    )


def test_a_compiler_that_is_switched_off_is_one_sentence():
    command = [sys.executable, "-m", "rwkv_engine_cli.app", "generate", "hi", "--max-tokens", "2"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=100, env={**os.environ, "NUMBA_DISABLE_JIT": "1"}
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "NUMBA_DISABLE_JIT" in done.stderr
