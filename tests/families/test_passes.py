"""What the lanes are told of a pass, and what they tell of its logits."""

import numpy as np
import pytest

from rwkv_engine.families.ends import all_finite
from rwkv_engine.families.passes import FINITE, new_words, plane, tell, told
from rwkv_engine.families.program import arguments
from rwkv_engine.kernels._jit import standalone
from rwkv_engine.kernels.pointers import address_of
from rwkv_engine.numbers.shapes import CHUNK
from rwkv_engine.state import Plane, State, StateLayout


@standalone
def read(words, places, tokens, rows, spans, states, wanted, row):
    """Copy what a pass holds, as far as the arrays reach; return the sizes it was told with."""
    now = told(words, places)
    tokens[: now.tokens.shape[0]], rows[: now.rows.shape[0]] = now.tokens, now.rows
    spans[: now.spans.shape[0]] = now.spans
    states[: now.states.shape[0]], wanted[: now.wanted.shape[0]] = now.states, now.wanted
    row[:] = now.logits[now.logits.shape[0] - 1]
    return (
        now.tokens.shape[0],
        now.rows.shape[0],
        now.spans.shape[0],
        now.states.shape[0],
        now.wanted.shape[0],
        now.logits.shape[0],
        now.logits.shape[1],
    )


@pytest.mark.parametrize(
    ("tokens", "sequences", "wanted"), [(1, 1, 1), (5, 2, 5), (CHUNK, CHUNK, CHUNK), (CHUNK, 1, 1)]
)
def test_what_is_told_is_what_is_read(tokens, sequences, wanted):
    rng, words = np.random.default_rng(tokens), new_words()
    words[:] = -7  # of an earlier pass
    ids, rows = rng.integers(0, 65536, tokens), rng.integers(0, CHUNK, tokens)
    logits = rng.standard_normal((wanted, 33), np.float32)
    spans, states = (
        sorted(rng.integers(0, tokens, sequences + 1).tolist()),
        rng.integers(1, 1 << 47, sequences).tolist(),
    )
    asked = rng.integers(0, tokens, wanted).tolist()
    tell(words, ids, rows, spans, states, asked, logits)
    got = [np.zeros(n, np.int64) for n in (tokens, tokens, sequences + 1, sequences, wanted)]
    row = np.zeros(33, np.float32)
    sizes = read(words, np.zeros((1, 2), np.int64), *got, row)
    assert sizes == (tokens, tokens, sequences + 1, sequences, wanted, wanted, 33)
    assert [g.tolist() for g in got] == [ids.tolist(), rows.tolist(), spans, states, asked]
    np.testing.assert_array_equal(row, logits[-1])
    assert words[FINITE] == 1


@standalone
def addresses(words, places, found):
    """found [P, L] <- the address of each layer's part of each plane of the first sequence's state."""
    now = told(words, places)
    for number in range(found.shape[0]):
        for layer in range(found.shape[1]):
            found[number, layer] = now.states[0] + plane(now, number, layer)


def test_compiled_code_finds_each_plane_where_the_state_has_it():
    planes = (Plane("one", (4, 6)), Plane("matrices", (4, 2, 3, 5)), Plane("last", (4, 1)))
    state, words, found = State.fresh(StateLayout(planes, "")), new_words(), np.zeros((3, 4), np.int64)
    one = np.zeros(1, np.int64)
    tell(words, one, one, (0, 1), [state.block.ctypes.data], (), np.zeros((0, 7), np.float32))
    addresses(words, arguments(planes, (), (), words).values[3], found)
    assert found.tolist() == [[part.ctypes.data for part in state[name]] for name in state.names]


@standalone
def check(numbers):
    """all_finite of an array."""
    return all_finite(address_of(numbers), numbers.shape[0])


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 1003])
def test_a_number_that_is_not_finite_is_found_wherever_it_lies(count):
    numbers = np.full(count, 3e38, np.float32)
    numbers[::2] *= -1
    assert check(numbers)
    for place in range(count):
        for wrong in (np.nan, np.inf, -np.inf):
            bad = numbers.copy()
            bad[place] = wrong
            assert not check(bad)
