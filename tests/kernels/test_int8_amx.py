"""AMX's tiles against the portable level, bit for bit; where there is no AMX, tests/amx/emulated.sh runs this
in an emulator.
"""

import threading

import formats_used
import numpy as np
import pytest
from numba import types
from numba.extending import intrinsic

from rwkv_engine.formats import format_named
from rwkv_engine.kernels import int8_amx, matmul_int8
from rwkv_engine.kernels._jit import standalone
from rwkv_engine.kernels.int8_levels import LEVELS
from rwkv_engine.kernels.int8_tiles import emitted, multiply, vector_tile
from rwkv_engine.kernels.matmul import STORE, matmul
from rwkv_engine.numbers.int8_layout import BLOCK, BLOCK_BYTES, LINE
from rwkv_engine.running.team import Team

pytestmark = pytest.mark.skipif(not LEVELS["amx"].has, reason="no AMX here: tests/amx/emulated.sh")
RNG = np.random.default_rng(0)
BLOCKS, TOKENS = 4, int8_amx.TOKENS
portable = multiply(vector_tile(LEVELS["portable"].dot, 1, 1))
sixteen = multiply(int8_amx.TILE)
begin, end = emitted(int8_amx.TILE.begin), emitted(int8_amx.TILE.end)


@intrinsic
def store_shapes(typingctx, address):
    """The shapes of this thread's tile registers, 64 bytes; zeros if there are none."""

    def codegen(context, builder, signature, arguments):
        int8_amx._call(builder, "sttilecfg", builder.inttoptr(arguments[0], int8_amx.I8.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@standalone
def by_amx(strip, planes, blocks, out, during, after):
    """out [times, TOKENS, 16] <- a tile's products, again and again; the shapes of the registers during it
    and after it.
    """
    begin()
    for n in range(out.shape[0]):
        x, here = planes.ctypes.data, out[n].ctypes.data
        sixteen(strip.ctypes.data, 0, x, BLOCKS * BLOCK, 2 * BLOCKS * BLOCK, 0, 0, blocks, here, 0, 0)
    store_shapes(during.ctypes.data)
    end()
    store_shapes(after.ctypes.data)


@standalone
def product(lane, y, W, x, after):
    """A whole product, and the shapes of the registers after it."""
    matmul(lane, 0, y, W, 0, x, STORE)
    store_shapes(after.ctypes.data)


@standalone
def by_portable(strip, numbers, blocks, out):
    """The same, one token after another."""
    for t in range(numbers.shape[0]):
        portable(strip.ctypes.data, 0, numbers[t].ctypes.data, 0, 0, 0, 0, blocks, out[t].ctypes.data, 0, 0)


def operands():
    """(a strip [BLOCKS, BLOCK_BYTES] of random weights and scales, inputs [TOKENS, BLOCKS * BLOCK] of 16
    bits, their two planes).
    """
    strip = RNG.integers(-128, 128, (BLOCKS, BLOCK_BYTES)).astype(np.int8)
    strip[0, :LINE], strip[0, LINE : 2 * LINE] = -128, 127
    scales = RNG.standard_normal((BLOCKS, LINE // 2)).astype(np.float32)
    strip[:, -LINE:] = (scales.view(np.uint32) >> 16).astype(np.uint16).view(np.int8)
    numbers = RNG.integers(-(2**15), matmul_int8.LARGEST + 1, (TOKENS, BLOCKS * BLOCK)).astype(np.int16)
    numbers[:2, :BLOCK], numbers[2:4, :BLOCK] = -(2**15), matmul_int8.LARGEST
    planes = np.concatenate([(numbers.astype(np.int32) + 128) >> 8, numbers], axis=1).astype(np.int8)
    assert planes.min() == strip.min() == -128 and planes.max() == strip.max() == 127
    return strip, numbers, planes


@pytest.mark.parametrize("blocks", range(1, BLOCKS + 1))
def test_the_tile_gives_the_portable_levels_integers_and_float32_sums(blocks):
    strip, numbers, planes = operands()
    out, want = np.zeros((1, TOKENS, 16), np.float32), np.zeros((TOKENS, 16), np.float32)
    during, after = np.full((2, 64), 7, np.uint8)
    by_amx(strip, planes, blocks, out, during, after)
    by_portable(strip, numbers, blocks, want)
    np.testing.assert_array_equal(out[0], want)
    assert during[0] == 1 and not after.any()


def test_threads_that_take_turns_on_a_core_do_not_mix_their_tiles():
    pairs = []
    for _ in range(3):
        strip, numbers, planes = operands()
        out, want = np.zeros((3000, TOKENS, 16), np.float32), np.zeros((TOKENS, 16), np.float32)
        by_portable(strip, numbers, BLOCKS, want)
        pairs.append(
            (
                threading.Thread(
                    target=by_amx, args=(strip, planes, BLOCKS, out, *np.zeros((2, 64), np.uint8))
                ),
                out,
                want,
            )
        )
    for thread, _, _ in pairs:
        thread.start()
    for thread, out, want in pairs:
        thread.join()
        assert (out == want).all()


def test_a_product_leaves_no_tiles_to_its_thread():
    W, owners = format_named("int8").pack([formats_used.tensor(RNG.standard_normal((50, 100)), "f32")])
    y, x = np.zeros((21, 50), np.float32), RNG.standard_normal((21, 100)).astype(np.float32)
    after = np.full(64, 7, np.uint8)
    Team(1, matmul_int8.room_for(100, 21)).run(product, y, W, x, after)
    assert y.any() and not after.any() and owners
