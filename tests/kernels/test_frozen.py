"""Arguments that are converted once: what compiled code finds in them."""

import gc
import subprocess
import sys
from typing import NamedTuple

import numpy as np

from rwkv_engine.families.ends import Ends
from rwkv_engine.kernels._jit import standalone
from rwkv_engine.kernels.frozen import Frozen, thaw
from rwkv_engine.kernels.matmul_float import F32Rows


@standalone
def look(frozen):
    """Everything in it, as one float; the first number of `numbers` grows by one."""
    ends, (flag, count, pair), words = thaw(frozen)
    rows = pair[1]
    total = float(words[0]) + count + ends.emb.rows * ends.emb.at[0]
    if flag:
        total += 1000
    for row in range(rows.shape[0]):
        part = rows[row]
        for i in range(part.shape[0]):
            total += part[i] * pair[0][row]
    total += ends.head[1, 2, 3]
    ends.ln0[0] += 1
    return total + ends.ln0[0]


def make(flag=True):
    """(a Frozen, its arrays)."""
    numbers, words, cube = (
        np.array([1.5], np.float32),
        np.array([7], np.int64),
        np.arange(24.0).reshape(2, 3, 4),
    )
    factors, rows = np.array([2.0, 3.0]), np.arange(6, dtype=np.float32).reshape(2, 3)
    at = np.array([11], np.int64)
    ends = Ends(F32Rows(at, 5, 3), cube, numbers, numbers)
    return Frozen(ends, (flag, 40, (factors, rows)), words), (numbers, words, cube, factors, rows, at)


def test_compiled_code_finds_what_was_frozen():
    frozen, (numbers, words, cube, _, rows, _) = make()
    plain = 7 + 40 + 55 + 1000 + 2.0 * rows[0].sum() + 3.0 * rows[1].sum() + 23
    assert look(frozen) == plain + 2.5
    assert numbers[0] == 2.5
    words[0], cube[1, 2, 3], rows[0, 0] = 8, 123, 10
    assert look(frozen) == plain + 1 + 100 + 20 + 3.5
    assert look(make(flag=False)[0]) == plain - 1000 + 2.5


def test_it_keeps_its_arrays_and_counts_no_references():
    frozen, arrays = make()
    before = [sys.getrefcount(array) for array in arrays]
    for _ in range(100):
        look(frozen)
    assert [sys.getrefcount(array) for array in arrays] == before
    want = look(frozen) + 1
    del arrays
    gc.collect()
    taken = [np.full(1, 9e9) for _ in range(1000)]
    assert look(frozen) == want and taken


def test_only_what_is_frozen_can_be_thawed():
    code = "from test_frozen import look\nlook((1.0, 2.0))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=__file__.rpartition("/")[0],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "TypingError" in done.stderr


def test_two_families_whose_weights_look_alike_are_two_types():
    """Else `step` would run one family by the program of the other."""
    kinds = [NamedTuple("Weights", [("first", float)]) for _ in range(2)]
    one, same, other = (Frozen(kind(1.0))._numba_type_ for kind in (kinds[0], kinds[0], kinds[1]))
    assert str(one) == str(other) and one == same and one != other
