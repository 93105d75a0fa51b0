"""Matrix products alone, in each weight format: bytes per second for one token, how much longer a few tokens take,
multiplications per second for many.

    python benchmarks/kernels.py [--threads 2] [--rows 4096] [--cols 2048] [--rounds 7]

Bounds: for one token the memory bandwidth, the matrices being larger than the caches; for 64 tokens what the
same code reaches on a matrix so small that it stays in the second-level cache. Last line: JSON.
"""

import argparse
import json
import statistics
import time
from typing import Any

import numpy as np

from rwkv_engine.bench.bandwidth import block, read_rates
from rwkv_engine.formats import format_named
from rwkv_engine.kernels._jit import standalone
from rwkv_engine.kernels.lanes import Lane, barrier
from rwkv_engine.kernels.matmul import STORE, matmul
from rwkv_engine.kernels.matmul_float import FEW_ROWS
from rwkv_engine.kernels.matmul_int8 import room_for
from rwkv_engine.numbers.tensor import Tensor
from rwkv_engine.running.team import Team
from rwkv_engine.system import cpu

#: tokens of the longest pass of the engine
MANY = 64
#: tokens of passes that should take little longer than one
FEW = (2, 4, 8)


@standalone
def products(lane, y, w, x, times):
    """All matrices of w, one after another, `times` times."""
    for n in range(times * w.at.shape[0]):
        matmul(lane, 0, y, w, n % w.at.shape[0], x, STORE)
        barrier(lane)


@standalone
def own_products(lane, y, w, x, times):
    """As `products`, but every lane works for itself, on a y of its own [lanes, T, rows]."""
    alone = Lane(0, 1, lane.shared, lane.room)
    for _ in range(times):
        matmul(alone, 0, y[lane.number], w, 0, x, STORE)


def packed(format: str, count: int, rows: int, cols: int) -> tuple[Any, list[np.ndarray]]:
    """(weights, owners): `count` random matrices in a weight format."""
    numbers = np.random.default_rng(0).standard_normal((rows, cols), np.float32)
    return format_named(format).pack(
        [Tensor(f"m{n}", (rows, cols), "F32", lambda: numbers.copy()) for n in range(count)]
    )


def seconds_of(team: Team, function: Any, arguments: tuple[Any, ...], rounds: int) -> list[float]:
    """Seconds of each call after a first one."""
    team.run(function, *arguments)
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        team.run(function, *arguments)
        seconds.append(time.perf_counter() - start)
    return seconds


def peak(format: str, threads: int, rounds: int = 7) -> float:
    """G multiplications/s of all lanes, at their best, on a matrix of at most 700 KB that stays in their
    second-level caches.

    It has more than FEW_ROWS rows, so that floats are added up as in large matrices, and INT8's inputs are
    not quantized for little.
    """
    rows, times = FEW_ROWS + 128, 30
    cols = 1024 // {"f32": 4, "bf16": 2, "f16": 2}.get(format, 1)
    weights, owners = packed(format, 1, rows, cols)
    x = np.random.default_rng(1).standard_normal((MANY, cols), np.float32)
    y = np.empty((threads, MANY, rows), np.float32)
    seconds = min(
        seconds_of(Team(threads, room_for(cols, MANY) + 65536), own_products, (y, weights, x, times), rounds)
    )
    del owners
    return threads * times * rows * cols * MANY / seconds / 1e9


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=cpu.physical_cores())
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--cols", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    rate = statistics.median(read_rates(options.threads, block(), options.rounds))
    team = Team(options.threads, room_for(options.cols, MANY) + 65536)
    report: dict[str, Any] = {"threads": options.threads, "gb_per_s": round(rate, 2)}
    for format in ("f32", "bf16", "f16", "int8", "int5", "int4"):
        count = max(2, 300_000_000 // (options.rows * options.cols))
        weights, owners = packed(format, count, options.rows, options.cols)
        size = sum(array.nbytes for array in owners)
        x = np.random.default_rng(1).standard_normal((MANY, options.cols), np.float32)
        y = np.empty((MANY, options.rows), np.float32)
        read = (
            size
            / statistics.median(seconds_of(team, products, (y[:1], weights, x[:1], 1), options.rounds))
            / 1e9
        )
        few = {
            tokens: statistics.median(
                seconds_of(team, products, (y[:tokens], weights, x[:tokens], 1), options.rounds)
            )
            * read
            * 1e9
            / size
            for tokens in FEW
        }
        done = (
            count
            * options.rows
            * options.cols
            * MANY
            / statistics.median(seconds_of(team, products, (y, weights, x, 1), 3))
            / 1e9
        )
        most = peak(format, options.threads)
        one = f"1 token: {read:5.1f} GB/s, {read / rate:4.0%} of {rate:.1f}"
        one += "   " + ", ".join(f"{tokens} : 1 {longer:.2f}" for tokens, longer in few.items())
        print(f"{format:5} {one}   {MANY} tokens: {done:6.1f} G/s, {done / most:4.0%} of {most:.0f}")
        report[format] = {
            "read_gb_per_s": round(read, 2),
            "few_to_one": {str(tokens): round(longer, 2) for tokens, longer in few.items()},
            "gmac_per_s": round(done, 1),
            "peak_gmac_per_s": round(most, 1),
        }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
