"""AMX's tiles against the portable level, bit for bit; where there is no AMX, tests/amx/emulated.sh runs this in an emulator."""

import numpy as np
import pytest
from numba import types
from numba.extending import intrinsic

from rwkv_engine.int8_layout import BLOCK, BLOCK_BYTES, LINE
from rwkv_engine.kernels import int8_amx, matmul_int8
from rwkv_engine.kernels._jit import standalone
from rwkv_engine.kernels.int8_levels import LEVELS, tile

pytestmark = pytest.mark.skipif(not LEVELS["amx"].has, reason="no AMX here: tests/amx/emulated.sh")
RNG = np.random.default_rng(0)
BLOCKS, TOKENS = 4, int8_amx.TOKENS
portable = tile(LEVELS["portable"], 1, 1)


@intrinsic
def store_shapes(typingctx, address):
    """The shapes of this thread's tile registers, 64 bytes; zeros if there are none."""

    def codegen(context, builder, signature, arguments):
        int8_amx._call(builder, "sttilecfg", builder.inttoptr(arguments[0], int8_amx.I8.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@standalone
def by_amx(strip, planes, blocks, out, during, after):
    """out [TOKENS, 16] <- one tile's products; the shapes of the registers during it and after it."""
    int8_amx.configure()
    int8_amx.multiply(strip.ctypes.data, planes.ctypes.data, BLOCKS * BLOCK, 2 * BLOCKS * BLOCK, blocks, out.ctypes.data)
    store_shapes(during.ctypes.data)
    int8_amx.release()
    store_shapes(after.ctypes.data)


@standalone
def by_portable(strip, numbers, blocks, out):
    """The same, one token after another."""
    for t in range(numbers.shape[0]):
        portable(strip.ctypes.data, 0, numbers[t].ctypes.data, 0, 0, 0, 0, blocks, out[t].ctypes.data)


@pytest.mark.parametrize("blocks", range(1, BLOCKS + 1))
def test_the_tile_gives_the_portable_levels_integers_and_float32_sums(blocks):
    strip = RNG.integers(-128, 128, (BLOCKS, BLOCK_BYTES)).astype(np.int8)
    strip[0, :LINE], strip[0, LINE : 2 * LINE] = -128, 127
    scales = RNG.standard_normal((BLOCKS, LINE // 2)).astype(np.float32)
    strip[:, -LINE:] = (scales.view(np.uint32) >> 16).astype(np.uint16).view(np.int8)
    numbers = RNG.integers(-(2**15), matmul_int8.LARGEST + 1, (TOKENS, BLOCKS * BLOCK)).astype(np.int16)
    numbers[:2, :BLOCK], numbers[2:4, :BLOCK] = -(2**15), matmul_int8.LARGEST
    planes = np.concatenate([(numbers.astype(np.int32) + 128) >> 8, numbers], axis=1).astype(np.int8)
    assert planes.min() == strip.min() == -128 and planes.max() == strip.max() == 127
    out, want = np.zeros((2, TOKENS, 16), np.float32)
    during, after = np.full((2, 64), 7, np.uint8)
    by_amx(strip, planes, blocks, out, during, after)
    by_portable(strip, numbers, blocks, want)
    np.testing.assert_array_equal(out, want)
    assert during[0] == 1 and not after.any()  # no thread keeps tiles between products
