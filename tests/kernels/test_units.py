"""INT8 matrices stored by units: products are those of matrices stored by rows, bit for bit, and the weights of
inputs that are zero are not read.
"""

import formats_used
import numpy as np
import pytest

from rwkv_engine.formats import format_named
from rwkv_engine.kernels import matmul_int8, matmul_units
from rwkv_engine.kernels._jit import standalone
from rwkv_engine.kernels.int8_levels import LEVELS
from rwkv_engine.kernels.lanes import barrier
from rwkv_engine.kernels.matmul import ADD, RELU2, STORE, matmul
from rwkv_engine.kernels.unit_tiles import AHEAD, gathering, tile_of
from rwkv_engine.numbers import int8_layout, unit_layout
from rwkv_engine.running.team import Team

RNG = np.random.default_rng(0)
ROWS_FORMAT = format_named("int8")
UNITS_FORMAT = ROWS_FORMAT.by_units


@standalone
def product(lane, y, W, x, finish):
    """One matrix product on all lanes."""
    matmul(lane, 0, y, W, 0, x, finish)
    barrier(lane)


def matrices(rows, cols):
    """(by rows, by units, their memory) of random weights."""
    tensor = formats_used.tensor(RNG.standard_normal((rows, cols)), "f32")
    by_rows, by_units = ROWS_FORMAT.pack([tensor]), UNITS_FORMAT.pack([tensor])
    return by_rows[0], by_units[0], (by_rows[1], by_units[1])


def inputs(tokens, cols, active):
    """Random numbers, of which only a share is not zero."""
    x = RNG.standard_normal((tokens, cols)) * (RNG.random((tokens, cols)) < active)
    return x.astype(np.float32)


@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (16, 64), (200, 100), (70, 1000), (1152, 192)])
def test_a_matrix_by_units_is_the_matrix_by_rows(rows, cols):
    values = RNG.standard_normal((rows, cols)).astype(np.float32)
    stored = int8_layout.packed(rows, cols, lambda first, last: values[first:last])
    units = unit_layout.by_units(stored)
    assert units.shape == unit_layout.shape_of(rows, cols)
    np.testing.assert_array_equal(unit_layout.by_strips(units)[: len(stored)], stored)
    np.testing.assert_array_equal(
        UNITS_FORMAT.to_float32(units, rows, cols), ROWS_FORMAT.to_float32(stored, rows, cols)
    )


def test_a_units_weights_of_64_rows_lie_together():
    values = np.zeros((64, 64), np.float32)
    values[:, 37] = np.arange(1, 65)
    values[:, 40] = 127  # so that the scale is 1
    units = unit_layout.by_units(int8_layout.packed(64, 64, lambda first, last: values[first:last]))
    unit = units[37 // 32].view(np.int8)[(37 % 32) * 64 :][:64]
    assert sorted(unit) == list(range(1, 65))
    # row 16 j + 4 l + i at place 16 l + 4 j + i
    assert [unit[16 * 2 + 4 * 3 + 1], unit[4 * 1]] == [1 + 16 * 3 + 4 * 2 + 1, 1 + 16 * 1]


@pytest.mark.parametrize("lanes", [1, 2, 3])
@pytest.mark.parametrize(("rows", "cols"), [(200, 100), (70, 1000), (1152, 192)])
def test_a_product_by_units_is_that_by_rows_bit_for_bit(rows, cols, lanes):
    by_rows, by_units, memory = matrices(rows, cols)
    room = max(matmul_int8.room_for(cols, 64), matmul_units.room_for(cols, 64))
    team = Team(lanes, room)
    for tokens in (1, 2, 3, 7, 8, 9, 16, 64):
        for active in (0, 0.03, 0.2, 0.7, 1):
            x = inputs(tokens, cols, active)
            for finish in (STORE, ADD, RELU2):
                want, got = np.full((2, tokens, rows), 7, np.float32)
                team.run(product, want, by_rows, x, finish)
                team.run(product, got, by_units, x, finish)
                np.testing.assert_array_equal(got, want)
    assert memory


@pytest.mark.parametrize("tokens", [1, 2, 5, matmul_units.FEW])
def test_units_that_are_zero_for_all_tokens_are_not_read(tokens):
    """Their scale is NaN: where a group's inputs are all zero, not even that is seen."""
    values = RNG.standard_normal((64, 192)).astype(np.float32)
    values[:, 64:96] = np.nan
    x, y = inputs(tokens, 192, 0.3), np.zeros((tokens, 64), np.float32)
    by_units, owners = UNITS_FORMAT.pack([formats_used.tensor(values, "f32")])
    team = Team(1, matmul_units.room_for(192, tokens))
    x[:, 64:96] = 0
    team.run(product, y, by_units, x, STORE)
    assert np.isfinite(y).all()
    x[-1, 70] = 1
    team.run(product, y, by_units, x, STORE)
    assert np.isnan(y[-1]).all() and owners


@standalone
def chosen(quads, places, tokens, cols, q, taken, rows):
    """`choose`, for Python."""
    matmul_units.choose(quads, places, tokens, cols, q, 2 * cols, taken, rows)


def test_the_units_that_are_listed_are_those_of_inputs_that_are_not_zero():
    cols, rows, tokens = 128, 64, 3
    numbers = RNG.integers(-9, 9, (tokens, cols)) * (RNG.random((tokens, cols)) < 0.1)
    numbers[:, 32:64] = 0
    numbers[1, 5], numbers[2, 127] = 256, -32000  # only their upper bytes are not zero, or both
    planes = np.stack([numbers >> 8, numbers & 255], axis=1).astype(np.uint8)
    q = planes if LEVELS[matmul_int8.LEVEL].dot.split else numbers.astype(np.int16)
    taken, quads, places = np.full_like(q, 77), np.zeros(5, np.int32), np.zeros(cols + 4 * AHEAD, np.int32)
    chosen(quads, places, tokens, cols, q.ctypes.data, taken.ctypes.data, rows)
    assert quads[0] == 0 and quads[1] == quads[2]
    want = {int(k) for k in np.flatnonzero(numbers.any(axis=0))}
    listed = places[: 4 * quads[-1]]
    assert {int(place) // (rows * 34) * 32 + int(place) % (rows * 34) // rows for place in listed} == want
    assert all(
        list(places[4 * a : 4 * b]) == sorted(places[4 * a : 4 * b])
        for a, b in zip(quads, quads[1:], strict=False)
    )


@standalone
def paying(q, tokens, cols):
    """`pays`, for Python."""
    return matmul_units.pays(q, 2 * cols, tokens, cols)


@pytest.mark.parametrize(("zeros", "want"), [(0, False), (16, False), (17, True), (128, True)])
def test_units_are_left_out_where_more_than_an_eighth_of_them_can_be(zeros, want):
    numbers = np.ones((2, 128), np.int16)
    numbers[:, RNG.permutation(128)[:zeros]] = 0
    planes = np.stack([numbers >> 8, numbers & 255], axis=1).astype(np.uint8)
    q = planes if LEVELS[matmul_int8.LEVEL].dot.split else numbers
    assert paying(q.ctypes.data, 2, 128) == want


@pytest.mark.parametrize("name", [name for name, level in LEVELS.items() if level.has])
@pytest.mark.parametrize(
    ("strips", "tokens", "gathered"), [(4, 2, True), (4, 1, False), (1, 2, True), (1, 1, True)]
)
def test_every_level_of_this_machine_gives_the_exact_integers(name, strips, tokens, gathered):
    dot, quads, largest = LEVELS[name].dot, 5, matmul_int8.LARGEST
    weights = RNG.integers(-127, 128, (64, 32)).astype(np.float32)
    weights[:, 0] = 127  # the scale is 1
    stored = unit_layout.by_units(int8_layout.packed(64, 32, lambda first, last: weights[first:last]))
    units = RNG.permutation(32)[: 4 * quads]
    places = np.concatenate([units * 64, np.zeros(4 * AHEAD)]).astype(np.int32)
    numbers = RNG.integers(-largest, largest + 1, (tokens, 4 * quads)).astype(np.int16)
    start = (-dot.offset * numbers.astype(np.int64).sum(axis=1)).astype(np.int32)
    planes = np.concatenate([(numbers.astype(np.int32) + 128) >> 8, numbers], axis=1).astype(np.int8)
    x, out = planes if dot.split else numbers, np.ones((tokens, 64), np.float32)
    gather, run, lines = gathering(dot), tile_of(dot, strips, tokens, gathered), np.zeros(4096 + 64, np.uint8)

    @standalone
    def call(stored, places, lines, x, start, out):
        at, made, scales = stored.ctypes.data, places.ctypes.data, stored.ctypes.data + 64 * 32
        if gathered:
            made = lines.ctypes.data
            gather(made, at, places.ctypes.data, quads)
        for s in range(0, 4, strips):
            here, begin, sums = made + 64 * s, start.ctypes.data, out.ctypes.data + 64 * s
            run(here, at, quads, x.ctypes.data, 4 * quads, 8 * quads, begin, 4, scales + 32 * s, sums, 256)

    call(stored, places, lines, x, start, out)
    want = (numbers.astype(np.int64) @ weights[:, units].astype(np.int64).T).astype(np.float32) + np.float32(
        1
    )
    np.testing.assert_array_equal(out, want)
