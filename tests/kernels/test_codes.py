"""Weights of 4-bit and 5-bit codes: the search against its twin, tiles of every level against exact integers, products against
the layout's numbers.
"""

import formats_used
import numpy as np
import pytest

from rwkv_engine.formats import codes as formats_of_codes
from rwkv_engine.formats import format_named
from rwkv_engine.kernels import matmul_int8
from rwkv_engine.kernels._jit import standalone
from rwkv_engine.kernels.code_search import quantize_int4, quantize_int5
from rwkv_engine.kernels.code_tiles import layout_of, tiles_of
from rwkv_engine.kernels.int8_levels import LEVELS
from rwkv_engine.kernels.int8_tiles import multiply, vector_tile
from rwkv_engine.kernels.matmul import STORE, matmul
from rwkv_engine.numbers.code_layout import INT4, INT5, padded, row_scales
from rwkv_engine.running.team import Team
from rwkv_engine.system import cpu

RNG = np.random.default_rng(0)
#: name -> (what its codes stand for, the search)
FORMATS = {"int4": (INT4, quantize_int4), "int5": (INT5, quantize_int5)}
each_format = pytest.mark.parametrize("name", FORMATS)


@standalone
def product(lane, y, W, x):
    """One matrix product on all lanes."""
    matmul(lane, 0, y, W, 0, x, STORE)


def packed(name, values):
    return format_named(name).pack([formats_used.tensor(values, "f32")])


def weights():
    """Rows of very different sizes, one of zeros and one with a group of zeros."""
    values = RNG.standard_normal((40, 200)) * np.exp(3 * RNG.standard_normal((40, 1)))
    values[3], values[5, :64] = 0, 0
    return values.astype(np.float32)


@each_format
def test_the_search_finds_its_twins_scales_and_codes(name):
    table, search = FORMATS[name]
    values = padded(weights())
    scale, importance = row_scales(values), RNG.random(values.shape[1]).astype(np.float32)
    want = table.arranged(*table.quantized(values, scale, importance), scale)
    np.testing.assert_array_equal(formats_of_codes.quantized(table, search, values, importance), want)


@each_format
def test_what_is_arranged_is_unpacked(name):
    table, _ = FORMATS[name]
    codes, scales = RNG.integers(0, len(table.values), (32, 128)), RNG.integers(-127, 128, (32, 8))
    scale = RNG.random(32).astype(np.float32)
    stored = table.arranged(codes.astype(np.uint8), scales.astype(np.int8), scale)
    want = np.array(table.values)[codes] * np.repeat(scales, 16, axis=1) * scale[:, None]
    assert stored.shape == table.shape_of(32, 128)
    np.testing.assert_allclose(table.unpacked(stored, 32, 128), want, rtol=1e-6)


@pytest.mark.parametrize(("name", "bits"), [("int4", 4.5), ("int5", 5.5)])
def test_a_weight_takes_so_many_bits_and_a_row_32_more(name, bits):
    assert format_named(name).bytes_of(160, 640) * 8 == 160 * (640 * bits + 32)


@each_format
def test_quantizing_gives_the_same_bytes_for_any_number_of_threads(name, monkeypatch):
    monkeypatch.setattr(formats_of_codes, "_PIECE", 1 << 12)
    values, found = RNG.standard_normal((300, 200)).astype(np.float32), []
    for lanes in (1, 2, 5):
        monkeypatch.setattr(cpu, "lanes", lambda lanes=lanes: lanes)
        found.append(format_named(name).stored(formats_used.tensor(values, "f32")).tobytes())
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(("name", "bound"), [("int4", 0.0045), ("int5", 0.0011)])
def test_of_normal_weights_so_little_is_lost(name, bound):
    values = RNG.standard_normal((16, 64)).astype(np.float32)
    got = FORMATS[name][0].unpacked(format_named(name).stored(formats_used.tensor(values, "f32")), 16, 64)
    assert np.square(got - values).mean() < bound * np.square(values).mean()


@each_format
@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("tokens", [1, 2, 3, 8, 21])
@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (16, 64), (17, 65), (50, 200), (300, 768)])
def test_a_product_is_that_of_the_formats_numbers(rows, cols, tokens, lanes, name):
    format = format_named(name)
    W, owners = packed(name, RNG.standard_normal((rows, cols)))
    x, y = RNG.standard_normal((tokens, cols)).astype(np.float32), np.empty((tokens, rows), np.float32)
    Team(lanes, format.room(cols, tokens)).run(product, y, W, x)
    want = x.astype(np.float64) @ format.unpack(W, 0).astype(np.float64).T
    np.testing.assert_allclose(y, want, atol=3e-4 * max(1, np.abs(want).max()))
    alone = np.empty_like(y)
    for t in range(tokens):
        Team(1, format.room(cols, 1)).run(product, alone[t : t + 1], W, x[t : t + 1])
    np.testing.assert_array_equal(y, alone)
    assert owners


@each_format
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_no_nan_and_no_infinity_is_lost(name, bad):
    format = format_named(name)
    values, x, y = np.ones((20, 100)), np.ones((1, 100), np.float32), np.zeros((1, 20), np.float32)
    values[3, 50] = bad
    W, owners = packed(name, values)
    Team(1, format.room(100, 1)).run(product, y, W, x)
    assert np.flatnonzero(~np.isfinite(y[0])).tolist() == [3]
    assert np.flatnonzero(~np.isfinite(format.unpack(W, 0)).all(axis=1)).tolist() == [3]
    assert owners


#: format, and the sizes of tiles that some level has
SIZES = sorted(
    {
        (name, tile.strips, tile.tokens)
        for name, (table, _) in FORMATS.items()
        for tiles in tiles_of(layout_of(table)).values()
        for tile in tiles
    }
)


@pytest.mark.parametrize("level", [name for name, level in LEVELS.items() if level.has and name != "amx"])
@pytest.mark.parametrize(("name", "strips", "tokens"), SIZES)
def test_every_level_of_this_machine_gives_the_exact_integers(level, name, strips, tokens):
    rows, dot, largest = 16 * strips, LEVELS[level].dot, matmul_int8.LARGEST
    table, _ = FORMATS[name]
    codes, scales = RNG.integers(0, len(table.values), (rows, 256)), RNG.integers(-127, 128, (rows, 16))
    codes[1] = 0  # the largest value
    scale = np.exp2(RNG.integers(-3, 4, rows)).astype(np.float32)
    stored = table.arranged(codes.astype(np.uint8), scales.astype(np.int8), scale)
    numbers = RNG.integers(-largest, largest + 1, (tokens, 256)).astype(np.int16)
    numbers[:, :16], numbers[:, 16:32] = largest, -largest
    groups = numbers.reshape(tokens, -1, 16).astype(np.int64)
    start = (-dot.offset * groups.sum(axis=2)).astype(np.int32)
    planes = np.concatenate([(numbers.astype(np.int32) + 128) >> 8, numbers], axis=1).astype(np.int8)
    inputs, out = planes if dot.split else numbers, np.zeros((tokens, rows), np.float32)
    run = multiply(vector_tile(dot, strips, tokens, layout=layout_of(table)))

    @standalone
    def call(stored, inputs, start, out, pitch):
        x, begin = inputs.ctypes.data, start.ctypes.data
        run(stored.ctypes.data, pitch, x, 256, 512, begin, 64, 4, out.ctypes.data, 0, 3)

    call(stored, inputs, start, out, stored.shape[1])
    want = np.zeros((tokens, rows))
    values = np.array(table.values)[codes].reshape(rows, 16, 16)
    for g in range(16):  # exact integers, as float32; each sum is rounded once, whether or not it is fused
        product = (groups[:, g] @ values[:, g].T).astype(np.float32).astype(np.float64) * scales[:, g]
        want = (want + product).astype(np.float32).astype(np.float64)
    np.testing.assert_array_equal(out, (want * scale).astype(np.float32))
