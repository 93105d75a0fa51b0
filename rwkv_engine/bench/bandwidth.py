"""How fast this machine reads memory with the engine's own loads and threads: the bound of every decode figure."""

import time

import numpy as np

from rwkv_engine.kernels.bandwidth import PIECE, read_all
from rwkv_engine.running.team import Team

#: bytes read in a round: far more than the caches of most machines hold
BLOCK = 512_000_000


def block(limit: int | None = None) -> np.ndarray:
    """[n] float32 ones to read: BLOCK bytes, or a quarter of the `limit` bytes of free memory where that is
    less.
    """
    size = BLOCK if limit is None else min(BLOCK, limit // 4)
    return np.ones(max(PIECE, size // PIECE * PIECE) // 4, np.float32)


def read_rates(lanes: int, data: np.ndarray, rounds: int) -> list[float]:
    """GB/s (10^9 bytes) of each round in which `lanes` lanes read data [n] float32 once; a first round is not
    counted.
    """
    ones = np.ones(PIECE // 4, np.float32)
    team, rates = Team(lanes), []
    for _ in range(rounds + 1):  # the first one compiles and wakes the threads
        start = time.perf_counter()
        team.run(read_all, data, ones)
        rates.append(data.nbytes // PIECE * PIECE / (time.perf_counter() - start) / 1e9)
    return rates[1:]
