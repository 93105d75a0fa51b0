"""Kernels one by one, against plain numpy: element functions, norms, dot products of every length, matrix
products.
"""

import formats_used
import numpy as np
import pytest

from rwkv_engine.formats import FORMATS, format_named
from rwkv_engine.kernels import matmul_int8, norm, wkv
from rwkv_engine.kernels._jit import standalone
from rwkv_engine.kernels.activations import exp, sigmoid, tanh
from rwkv_engine.kernels.int8_levels import LEVELS
from rwkv_engine.kernels.int8_tiles import multiply, vector_tile
from rwkv_engine.kernels.matmul import ADD, RELU2, SIGMOID, SILU, STORE, TANH, expand, matmul, read_row
from rwkv_engine.kernels.matmul_float import room_for_floats
from rwkv_engine.numbers.shapes import ALIKE
from rwkv_engine.running.team import Team

RNG = np.random.default_rng(0)
FLOATS = [name for name, one in FORMATS.items() if not one.quantized]
FINISH = {
    STORE: lambda p, y: p,
    ADD: lambda p, y: y + p,
    RELU2: lambda p, y: np.maximum(p, 0) ** 2,
    SIGMOID: lambda p, y: 1 / (1 + np.exp(-p)),
    TANH: lambda p, y: np.tanh(p),
    SILU: lambda p, y: p / (1 + np.exp(-p)),
}


layer_norm, wkv7_head, wkv7_rest = (
    standalone(f.py_func) for f in (norm.layer_norm, wkv.wkv7_head, wkv.wkv7_rest)
)


@standalone
def all_of(function, out, x):
    """out <- function(x), element by element."""
    for i in range(x.shape[0]):
        out[i] = function(x[i])


@standalone
def product(lane, y, W, layer, x, finish):
    """One matrix product on all lanes."""
    matmul(lane, 0, y, W, layer, x, finish)


@standalone
def row(out, W, layer, number):
    """One row."""
    read_row(out, W, layer, number)


@standalone
def spread(out, W, layer, head, hidden):
    """One head's expansion."""
    expand(out, W, layer, head, hidden)


def test_exp_and_sigmoid_are_accurate_and_keep_nan():
    x = np.concatenate([np.linspace(-87, 88, 200_001), [0.0, -0.0, 1e-30]]).astype(np.float32)
    out = np.empty_like(x)
    all_of(exp, out, x)
    np.testing.assert_allclose(out, np.exp(x.astype(np.float64)), rtol=1.5e-7)
    all_of(sigmoid, out, x)
    np.testing.assert_allclose(out, 1 / (1 + np.exp(-x.astype(np.float64))), rtol=4e-7)
    special = np.array([np.nan, np.inf, -np.inf, 1000, -1000], np.float32)
    out = np.empty_like(special)
    all_of(exp, out, special)
    assert (
        np.isnan(out[0])
        and (out[[1, 3]] > 1e38).all()
        and (out[[2, 4]] < 2e-38).all()
        and (out[[2, 4]] >= 0).all()
    )
    all_of(sigmoid, out, special)
    assert np.isnan(out[0]) and (out[[1, 3]] == 1).all() and (out[[2, 4]] < 1e-37).all()


def test_tanh_is_accurate_down_to_the_smallest_numbers_and_keeps_nan():
    sizes = np.concatenate([np.logspace(-30, 2, 100_001), [0.0]]).astype(np.float32)
    x = np.concatenate([sizes, -sizes])
    out = np.empty_like(x)
    all_of(tanh, out, x)
    np.testing.assert_allclose(out, np.tanh(x.astype(np.float64)), rtol=4e-7)
    special = np.array([np.nan, np.inf, -np.inf], np.float32)
    all_of(tanh, out, special)
    np.testing.assert_array_equal(out[:3], np.array([np.nan, 1, -1], np.float32))


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_a_layer_norm_is_the_formula(size):
    x, weight, bias = (RNG.standard_normal(size).astype(np.float32) * 3 + 1 for _ in range(3))
    out = np.empty_like(x)
    layer_norm(out, x, weight, bias, norm.EPSILON)
    wide = x.astype(np.float64)
    want = (wide - wide.mean()) / np.sqrt(wide.var() + 1e-5) * weight + bias
    np.testing.assert_allclose(out, want, atol=1e-5)


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("tokens", [1, 2, 5, 64])
@pytest.mark.parametrize(
    ("rows", "cols"), [(1, 1), (3, 31), (4, 32), (7, 33), (37, 100), (130, 768), (16, 4100)]
)
@pytest.mark.parametrize("name", FLOATS)
def test_a_product_is_numpys_whatever_the_shape(name, rows, cols, tokens, lanes):
    tensors = [formats_used.tensor(RNG.standard_normal((rows, cols)) / cols**0.5, name) for _ in range(2)]
    W, owners = format_named(name).pack(tensors)
    x, y = (RNG.standard_normal(shape).astype(np.float32) for shape in ((tokens, cols), (tokens, rows)))
    assert owners
    for finish, after in FINISH.items():
        out = y.copy()
        Team(lanes, room_for_floats(cols, tokens)).run(product, out, W, 1, x, finish)
        want = after(x.astype(np.float64) @ tensors[1].float32().astype(np.float64).T, y)
        np.testing.assert_allclose(out, want, atol=3e-5, rtol=3e-5)


@pytest.mark.parametrize(("rows", "cols"), [(131, 1024), (7, 63), (515, 130)])
@pytest.mark.parametrize("name", FLOATS)
def test_a_product_of_up_to_eight_tokens_is_each_ones_own_bit_for_bit(name, rows, cols):
    W, owners = format_named(name).pack([formats_used.tensor(RNG.standard_normal((rows, cols)), name)])
    x, alone = (RNG.standard_normal((ALIKE, size)).astype(np.float32) for size in (cols, rows))
    team = Team(2, room_for_floats(cols, ALIKE))
    for t in range(ALIKE):
        team.run(product, alone[t : t + 1], W, 0, x[t : t + 1], STORE)
    for tokens in range(2, ALIKE + 1):
        y = np.zeros((tokens, rows), np.float32)
        team.run(product, y, W, 0, x[:tokens], STORE)
        np.testing.assert_array_equal(y, alone[:tokens])
    assert owners


@pytest.mark.parametrize("name", FLOATS)
def test_rows_are_what_was_packed(name):
    tensors = [formats_used.tensor(RNG.standard_normal((12, 40)), name) for _ in range(2)]
    W, owners = format_named(name).pack(tensors)
    out = np.empty(40, np.float32)
    row(out, W, 1, 7)
    np.testing.assert_array_equal(out, tensors[1].float32()[7])
    assert owners


@pytest.mark.parametrize("size", [8, 32, 64, 88, 128])
@pytest.mark.parametrize("tokens", [1, 3, 9])
@pytest.mark.parametrize("name", FLOATS)
def test_an_expansion_is_a_product_with_one_heads_channels(name, tokens, size):
    tensors = [formats_used.tensor(RNG.standard_normal((12, 3 * size)), name) for _ in range(2)]
    other = formats_used.tensor(RNG.standard_normal((5, 3 * size)), name)
    (_, heads, late), owners = format_named(name).pack_heads(
        [[other, tensors[0], None], [other, tensors[1], other]], 3
    )
    hidden, out = (
        RNG.standard_normal((tokens, 20)).astype(np.float32)[:, 4:16],
        np.zeros((tokens, size + 5), np.float32),
    )
    spread(out[:, 2 : size + 2], heads, 1, 2, hidden)
    np.testing.assert_allclose(out[:, 2 : size + 2], hidden @ tensors[1].float32()[:, 2 * size :], atol=2e-5)
    assert not out[:, :2].any() and not out[:, size + 2 :].any() and owners
    spread(out[:, 2 : size + 2], late, 1, 0, hidden[:, :5])
    np.testing.assert_allclose(out[:, 2 : size + 2], hidden[:, :5] @ other.float32()[:, :size], atol=2e-5)


@pytest.mark.parametrize("size", [8, 24, 32, 64, 96, 128])
def test_the_v7_recurrence_in_strips_is_its_slow_twin(size):
    r, w, k, v, a, b = RNG.standard_normal((6, size)).astype(np.float32)
    fast, slow = (np.full(size, 7, np.float32) for _ in range(2))
    S = RNG.standard_normal((size, size)).astype(np.float32)
    twin = S.copy()
    wkv7_head(S, r, w, k, v, a, b, fast)
    wkv7_rest(twin, r, w, k, v, a, b, slow, 0)
    np.testing.assert_allclose(fast, slow, atol=1e-4 * np.abs(slow).max())
    np.testing.assert_allclose(S, twin, atol=1e-5 * np.abs(twin).max())


@pytest.mark.parametrize("name", FLOATS)
def test_a_format_keeps_its_own_numbers_bit_for_bit_and_where_they_lie(name):
    tensor = formats_used.tensor(RNG.standard_normal((6, 10)), name)
    W, owners = format_named(name).pack([tensor])
    np.testing.assert_array_equal(format_named(name).unpack(W, 0), tensor.float32())
    assert np.shares_memory(owners[0], tensor.bits())


def test_half_precision_is_exact_down_to_its_smallest_numbers():
    every = np.arange(65536, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)].reshape(-1, 1)
    W, owners = format_named("f16").pack([formats_used.stored(finite, "F16")])
    out = np.empty((1, len(finite)), np.float32)
    Team(1).run(product, out, W, 0, np.ones((1, 1), np.float32), STORE)
    np.testing.assert_array_equal(out[0], finite[:, 0].astype(np.float32))
    wide = np.repeat(finite[: len(finite) // 32 * 32].reshape(-1, 32), 1, axis=0)
    W, more = format_named("f16").pack([formats_used.stored(np.ascontiguousarray(wide), "F16")])
    out = np.empty((1, len(wide)), np.float32)
    picks = np.zeros((1, 32), np.float32)
    for column in range(32):
        picks[:] = 0
        picks[0, column] = 1
        Team(1).run(product, out, W, 0, picks, STORE)
        np.testing.assert_array_equal(out[0], wide[:, column].astype(np.float32))
    assert owners and more


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("tokens", [1, 3, 8, 21])
@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (16, 64), (17, 65), (50, 200), (300, 768)])
def test_an_int8_product_is_the_integers_product(rows, cols, tokens, lanes):
    tensors = [formats_used.tensor(RNG.standard_normal((rows, cols)), "f32") for _ in range(2)]
    W, owners = format_named("int8").pack(tensors)
    x, y = (RNG.standard_normal(shape).astype(np.float32) for shape in ((tokens, cols), (tokens, rows)))
    x[0, :: cols // 3 + 1] *= 50  # a few large inputs, as behind the squared ReLU
    plain = np.empty_like(y)
    Team(lanes, matmul_int8.room_for(cols, tokens)).run(product, plain, W, 1, x, STORE)
    want = rounded(x) @ format_named("int8").unpack(W, 1).astype(np.float64).T
    np.testing.assert_allclose(plain, want, rtol=1e-5, atol=1e-5 * max(1, np.abs(want).max()))
    for finish, after in FINISH.items():
        out = y.copy()
        Team(lanes, matmul_int8.room_for(cols, tokens)).run(product, out, W, 1, x, finish)
        np.testing.assert_allclose(out, after(plain.astype(np.float64), y), rtol=1e-6, atol=1e-6)
    assert owners


def test_int8_products_of_200_odd_shapes_are_the_twins():
    # a twin that rounds inputs in float64 is one step away where float32 has a tie: 1/32,639 of the largest
    rng, team = np.random.default_rng(0), Team(2, matmul_int8.room_for(400, 20))
    for number in range(200):
        rows, cols, tokens = (int(rng.integers(1, most)) for most in (100, (20, 70, 400)[number % 3], 20))
        W, owners = format_named("int8").pack([formats_used.tensor(rng.standard_normal((rows, cols)), "f32")])
        weights = format_named("int8").unpack(W, 0).astype(np.float64).T
        x = rng.standard_normal((tokens, cols)).astype(np.float32)
        x[0, 0] *= 1000
        out, want = np.empty((tokens, rows), np.float32), rounded(x) @ weights
        team.run(product, out, W, 0, x, STORE)
        size = np.abs(x.astype(np.float64)) @ np.abs(weights)
        assert (np.abs(out - want) <= 1e-6 * size).all(), (rows, cols, tokens)
        half_steps = 0.51 * np.abs(x).max(axis=1, keepdims=True) / matmul_int8.LARGEST
        assert (np.abs(out - x @ weights) <= half_steps * np.abs(weights).sum(axis=0)).all() and owners


def test_an_int8_product_of_many_tokens_is_each_ones_own_bit_for_bit():
    W, owners = format_named("int8").pack([formats_used.tensor(RNG.standard_normal((50, 200)), "f32")])
    x, y, alone = (RNG.standard_normal((21, size)).astype(np.float32) for size in (200, 50, 50))
    Team(1, matmul_int8.room_for(200, 21)).run(product, y, W, 0, x, STORE)
    for t in range(21):
        Team(1, matmul_int8.room_for(200, 1)).run(product, alone[t : t + 1], W, 0, x[t : t + 1], STORE)
    np.testing.assert_array_equal(y, alone)
    assert owners


def test_int8_is_at_most_half_a_step_off():
    values = RNG.standard_normal((40, 300)).astype(np.float32)
    values[3] = 0
    W, owners = format_named("int8").pack([formats_used.tensor(values, "f32")])
    off = np.abs(format_named("int8").unpack(W, 0) - values)
    for lo in range(0, 300, 32):
        step = np.abs(values[:, lo : lo + 32]).max(axis=1) / 127 * (1 + 2**-7)  # a BF16 scale is rounded up
        assert (off[:, lo : lo + 32] <= step[:, None] * 0.5001).all()
    assert owners


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_int8_loses_no_nan_and_no_infinity(bad):
    values, x = np.ones((20, 100), np.float32), np.ones((1, 100), np.float32)
    y = np.zeros((1, 20), np.float32)
    values[3, 50] = bad
    W, owners = format_named("int8").pack([formats_used.tensor(values, "f32")])
    Team(1, matmul_int8.room_for(100, 1)).run(product, y, W, 0, x, STORE)
    assert np.flatnonzero(~np.isfinite(y[0])).tolist() == [3]
    values[3, 50], x[0, 70] = 1, bad
    W, owners = format_named("int8").pack([formats_used.tensor(values, "f32")])
    Team(1, matmul_int8.room_for(100, 1)).run(product, y, W, 0, x, STORE)
    assert not np.isfinite(y).any() and owners


def rounded(x):
    """Inputs as they are after quantization, float64: each token rounded to steps of its largest number /
    LARGEST.
    """
    largest = np.abs(x).max(axis=1, keepdims=True)
    return np.rint(x * (np.float32(matmul_int8.LARGEST) / largest)).astype(np.float64) * (
        largest / np.float32(matmul_int8.LARGEST)
    )


@pytest.mark.parametrize("name", [name for name, level in LEVELS.items() if level.has])
@pytest.mark.parametrize(("strips", "tokens"), [(1, 1), (1, 2), (2, 1), (1, 8)])
def test_every_level_of_this_machine_gives_the_exact_integers(name, strips, tokens):
    integers = RNG.integers(-127, 128, (16 * strips, 256)).astype(np.float32)
    integers[:, ::32] = 127  # so that every group's scale is 1
    integers[1], integers[2] = 127, -127
    W, owners = format_named("int8").pack([formats_used.tensor(integers, "f32")])
    numbers = RNG.integers(-matmul_int8.LARGEST, matmul_int8.LARGEST + 1, (tokens, 256)).astype(np.int16)
    numbers[:, 64:96], numbers[:, 96:128] = matmul_int8.LARGEST, -matmul_int8.LARGEST  # the extremes
    start = (-LEVELS[name].dot.offset * numbers.reshape(tokens, -1, 32).sum(2, dtype=np.int32)).astype(
        np.int32
    )
    planes = np.concatenate([(numbers.astype(np.int32) + 128) >> 8, numbers], axis=1).astype(np.int8)
    inputs = planes if LEVELS[name].dot.split else np.ascontiguousarray(numbers)
    out = np.zeros((tokens, 16 * strips), np.float32)
    run = multiply(vector_tile(LEVELS[name].dot, strips, tokens))

    @standalone
    def call(at, inputs, start, out):
        run(at, 4 * 1088, inputs.ctypes.data, 256, 512, start.ctypes.data, 32, 4, out.ctypes.data, 0, 3)

    call(W.at[0], inputs, start, out)
    groups = numbers.reshape(tokens, -1, 32).astype(np.int64)
    want = np.zeros((tokens, 16 * strips), np.float32)
    for g in range(8):  # exact integers, added up as float32 in this order
        want += (groups[:, g] @ integers[:, 32 * g : 32 * g + 32].astype(np.int64).T).astype(np.float32)
    np.testing.assert_array_equal(out, want)
    assert owners
