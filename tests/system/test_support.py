"""Systems that the engine cannot run on are refused in one sentence, before numba is imported."""

import subprocess
import sys

import pytest

from rwkv_engine.errors import EngineError, UnsupportedSystem
from rwkv_engine.system import support

GLIBC, MUSL = ".cpython-311-aarch64-linux-gnu.so", ".cpython-312-x86_64-linux-musl.so"


@pytest.mark.parametrize("suffix", [GLIBC, ".cp312-win_amd64.pyd", ".cpython-313-darwin.so", ".so"])
def test_a_64_bit_python_is_taken(suffix):
    assert support.refusal(64, suffix, "little") is None


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        ((32, ".cpython-311-arm-linux-gnueabihf.so", "little"), "32-bit"),
        ((64, MUSL, "little"), "musl"),
        ((64, GLIBC, "big"), "byte"),
    ],
)
def test_other_systems_are_refused_in_one_sentence(facts, word):
    reason = support.refusal(*facts)
    assert word in reason and "\n" not in reason and ". " not in reason


def test_this_system_is_judged_by_its_own_facts(monkeypatch):
    support.check()
    monkeypatch.setattr(support, "EXTENSION_SUFFIXES", [MUSL])
    with pytest.raises(UnsupportedSystem, match="musl"):
        support.check()
    assert issubclass(UnsupportedSystem, EngineError)


@pytest.mark.parametrize(
    "door", ["import rwkv_engine; rwkv_engine.load", "import rwkv_engine_cli.app as a; a.main()"]
)
def test_the_door_is_closed_before_numba_is_imported(door):
    program = f"import sys; sys.maxsize = 2**31 - 1\ntry: {door}\nfinally: print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and "32-bit" in done.stderr and done.stdout == "False\n"
