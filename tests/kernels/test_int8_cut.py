"""How an INT8 product is cut into tiles: never visible in the result, and each tile's `begin` and `end` stand
around its work.
"""

from functools import partial

import formats_used
import numpy as np
import pytest

from rwkv_engine.formats import format_named
from rwkv_engine.kernels._jit import standalone
from rwkv_engine.kernels.int8_levels import LEVELS
from rwkv_engine.kernels.int8_tiles import Tile, vector_tile
from rwkv_engine.kernels.lanes import barrier
from rwkv_engine.kernels.matmul import ADD, STORE
from rwkv_engine.kernels.matmul_int8 import LEVEL, product
from rwkv_engine.kernels.vectors import I64, load
from rwkv_engine.running.team import Team

RNG = np.random.default_rng(0)
DOT = LEVELS[LEVEL].dot
#: rows of 7 strips and a part of one, cols of 3 blocks and a part of one
ROWS, COLS = 117, 200
#: sizes of tiles, largest first, and of each some numbers of tokens that are cut differently
CUTS = [
    ((4, 2),),
    ((2, 4), (1, 2)),
    ((1, 4), (1, 2)),
    ((4, 2), (1, 2)),
    ((1, 16), (4, 2)),
    ((3, 3), (1, 2)),
]


def ran(tiles):
    """(lane, y, W, x, finish) -> nothing: the product cut into `tiles`, by a Team."""
    multiply = standalone(product(tiles))

    @standalone
    def whole(lane, y, W, x, finish):
        multiply(lane, 0, y, W, 0, x, finish)
        barrier(lane)

    return whole


def sized(*sizes):
    return [vector_tile(DOT, *size) for size in (*sizes, (1, 1))]


@pytest.fixture(scope="module")
def weights():
    return format_named("int8").pack([formats_used.tensor(RNG.standard_normal((ROWS, COLS)), "f32")])


single = ran(sized())


@pytest.mark.slow_but("((2, 4), (1, 2))")
@pytest.mark.parametrize("sizes", CUTS, ids=str)
def test_a_product_is_the_same_however_it_is_cut(weights, sizes):
    W, _ = weights
    whole, team = ran(sized(*sizes)), Team(2, 20000)
    for tokens in (*range(1, 10), 16, 17, 23, 64):
        x = RNG.standard_normal((tokens, COLS)).astype(np.float32)
        want, got = np.full((2, tokens, ROWS), 7, np.float32)
        team.run(single, want, W, x, ADD)
        team.run(whole, got, W, x, ADD)
        np.testing.assert_array_equal(got, want)


def counted(counters, place, builder):
    """Emit: counters[place] += 1."""
    at = I64(counters.ctypes.data + 8 * place)
    number = builder.add(load(builder, at, I64, 8), I64(1))
    builder.store(number, builder.inttoptr(at, I64.as_pointer()))


@pytest.mark.slow_but("70-1")
@pytest.mark.parametrize(("tokens", "times"), [(1, 0), (15, 0), (16, 1), (64, 1), (70, 1)])
def test_a_matrix_unit_is_begun_and_ended_once_by_each_lane_that_uses_it(weights, tokens, times):
    W, _ = weights
    counters = np.zeros(2, np.int64)
    emit = vector_tile(DOT, 1, 16).emit
    unit = Tile(1, 16, emit, partial(counted, counters, 0), partial(counted, counters, 1))
    whole, team = ran([unit, *sized((4, 2))]), Team(1, 60000)
    x = RNG.standard_normal((tokens, COLS)).astype(np.float32)
    want, got = np.zeros((2, tokens, ROWS), np.float32)
    team.run(single, want, W, x, STORE)
    team.run(whole, got, W, x, STORE)
    np.testing.assert_array_equal(got, want)
    assert counters.tolist() == [times, times]


@pytest.mark.parametrize("name", LEVELS)
def test_a_levels_last_tile_fits_everywhere_and_its_largest_group_is_a_multiple_of_all(name):
    tiles = LEVELS[name].tiles
    group = max(tile.strips for tile in tiles)
    assert (tiles[-1].strips, tiles[-1].tokens) == (1, 1)
    assert all(group % tile.strips == 0 for tile in tiles)


def test_amx_is_a_row_before_those_of_avx512():
    assert LEVELS["amx"].tiles[0].tokens == 16 and LEVELS["amx"].tiles[1:] == LEVELS["vnni"].tiles
