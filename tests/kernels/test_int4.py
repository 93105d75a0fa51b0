"""4-bit weights: the search against its twin, tiles of every level against exact integers, products against
the layout's numbers.
"""

import formats_used
import numpy as np
import pytest

from rwkv_engine.formats import format_named, int4
from rwkv_engine.kernels import matmul_int4, matmul_int8
from rwkv_engine.kernels._jit import standalone
from rwkv_engine.kernels.int4_tiles import INT4, TILES
from rwkv_engine.kernels.int8_levels import LEVELS
from rwkv_engine.kernels.int8_tiles import multiply, vector_tile
from rwkv_engine.kernels.matmul import STORE, matmul
from rwkv_engine.numbers import int4_layout as layout
from rwkv_engine.running.team import Team
from rwkv_engine.system import cpu

RNG = np.random.default_rng(0)


@standalone
def product(lane, y, W, x):
    """One matrix product on all lanes."""
    matmul(lane, 0, y, W, 0, x, STORE)


def packed(values):
    return format_named("int4").pack([formats_used.tensor(values, "f32")])


def weights():
    """Rows of very different sizes, one of zeros and one with a group of zeros."""
    values = RNG.standard_normal((40, 200)) * np.exp(3 * RNG.standard_normal((40, 1)))
    values[3], values[5, :64] = 0, 0
    return values.astype(np.float32)


def test_the_search_finds_its_twins_scales_and_codes():
    values = layout.padded(weights())
    scale, importance = layout.row_scales(values), RNG.random(values.shape[1]).astype(np.float32)
    want = layout.arranged(*layout.quantized(values, scale, importance), scale)
    np.testing.assert_array_equal(int4._quantized(values, importance), want)


def test_what_is_arranged_is_unpacked():
    codes, scales = RNG.integers(0, 16, (32, 128)), RNG.integers(-127, 128, (32, 8))
    scale = RNG.random(32).astype(np.float32)
    stored = layout.arranged(codes.astype(np.uint8), scales.astype(np.int8), scale)
    want = np.array(layout.VALUES)[codes] * np.repeat(scales, 16, axis=1) * scale[:, None]
    assert stored.shape == layout.shape_of(32, 128)
    np.testing.assert_allclose(layout.unpacked(stored, 32, 128), want, rtol=1e-6)


def test_quantizing_gives_the_same_bytes_for_any_number_of_threads(monkeypatch):
    monkeypatch.setattr(int4, "_PIECE", 1 << 12)
    values, found = RNG.standard_normal((300, 200)).astype(np.float32), []
    for lanes in (1, 2, 5):
        monkeypatch.setattr(cpu, "lanes", lambda lanes=lanes: lanes)
        found.append(int4._stored(formats_used.tensor(values, "f32")).tobytes())
    assert found[0] == found[1] == found[2]


def test_no_scale_nearby_is_better():
    """For a group of its own in a row, whose scale is free of the row's: beside what was found, the error
    only grows.
    """
    values = RNG.standard_normal((16, 64)).astype(np.float32)
    got = layout.unpacked(int4._quantized(values, np.ones(64, np.float32)), 16, 64)
    assert np.square(got - values).mean() < 0.0045 * np.square(values).mean()


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("tokens", [1, 2, 3, 8, 21])
@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (16, 64), (17, 65), (50, 200), (300, 768)])
def test_an_int4_product_is_that_of_its_numbers(rows, cols, tokens, lanes):
    W, owners = packed(RNG.standard_normal((rows, cols)))
    x, y = RNG.standard_normal((tokens, cols)).astype(np.float32), np.empty((tokens, rows), np.float32)
    Team(lanes, matmul_int4.room_for(cols, tokens)).run(product, y, W, x)
    want = x.astype(np.float64) @ format_named("int4").unpack(W, 0).astype(np.float64).T
    np.testing.assert_allclose(y, want, atol=3e-4 * max(1, np.abs(want).max()))
    alone = np.empty_like(y)
    for t in range(tokens):
        Team(1, matmul_int4.room_for(cols, 1)).run(product, alone[t : t + 1], W, x[t : t + 1])
    np.testing.assert_array_equal(y, alone)
    assert owners


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_int4_loses_no_nan_and_no_infinity(bad):
    values, x, y = np.ones((20, 100)), np.ones((1, 100), np.float32), np.zeros((1, 20), np.float32)
    values[3, 50] = bad
    W, owners = packed(values)
    Team(1, matmul_int4.room_for(100, 1)).run(product, y, W, x)
    assert np.flatnonzero(~np.isfinite(y[0])).tolist() == [3]
    assert np.flatnonzero(~np.isfinite(format_named("int4").unpack(W, 0)).all(axis=1)).tolist() == [3]
    assert owners


#: the sizes of tiles that some level has
SIZES = sorted({(tile.strips, tile.tokens) for tiles in TILES.values() for tile in tiles if tile.tokens < 16})


@pytest.mark.parametrize("name", [name for name, level in LEVELS.items() if level.has and name != "amx"])
@pytest.mark.parametrize(("strips", "tokens"), SIZES)
def test_every_level_of_this_machine_gives_the_exact_integers(name, strips, tokens):
    rows, dot, largest = 16 * strips, LEVELS[name].dot, matmul_int8.LARGEST
    codes, scales = RNG.integers(0, 16, (rows, 256)), RNG.integers(-127, 128, (rows, 16))
    codes[1] = 0  # the largest value
    scale = np.exp2(RNG.integers(-3, 4, rows)).astype(np.float32)
    stored = layout.arranged(codes.astype(np.uint8), scales.astype(np.int8), scale)
    numbers = RNG.integers(-largest, largest + 1, (tokens, 256)).astype(np.int16)
    numbers[:, :16], numbers[:, 16:32] = largest, -largest
    groups = numbers.reshape(tokens, -1, 16).astype(np.int64)
    start = (-dot.offset * groups.sum(axis=2)).astype(np.int32)
    planes = np.concatenate([(numbers.astype(np.int32) + 128) >> 8, numbers], axis=1).astype(np.int8)
    inputs, out = planes if dot.split else numbers, np.zeros((tokens, rows), np.float32)
    run = multiply(vector_tile(dot, strips, tokens, layout=INT4))

    @standalone
    def call(stored, inputs, start, out, pitch):
        x, begin = inputs.ctypes.data, start.ctypes.data
        run(stored.ctypes.data, pitch, x, 256, 512, begin, 64, 4, out.ctypes.data, 0)

    call(stored, inputs, start, out, stored.shape[1])
    want = np.zeros((tokens, rows))
    values = np.array(layout.VALUES)[codes].reshape(rows, 16, 16)
    for g in range(16):  # exact integers, as float32; each sum is rounded once, whether or not it is fused
        product = (groups[:, g] @ values[:, g].T).astype(np.float32).astype(np.float64) * scales[:, g]
        want = (want + product).astype(np.float32).astype(np.float64)
    np.testing.assert_array_equal(out, (want * scale).astype(np.float32))
