"""How fast this machine reads memory with the engine's own loads: the bound of every decode figure.

    python benchmarks/bandwidth.py [--threads 2] [--megabytes 512] [--rounds 9]

Last line: JSON, GB/s (10^9 bytes), median and best of the rounds.
"""

import argparse
import json
import statistics
import time

import numpy as np

from rwkv_engine import cpu
from rwkv_engine.kernels.bandwidth import PIECE, read_all
from rwkv_engine.team import Team


def measure(threads: int, megabytes: int = 512, rounds: int = 9) -> list[float]:
    """GB/s of each round: `threads` lanes reading a block far larger than a core's caches, once a round."""
    data, ones = np.ones(megabytes * 250_000, np.float32), np.ones(PIECE // 4, np.float32)
    team = Team(threads)
    rates = []
    for _ in range(rounds + 1):  # the first round compiles and wakes the lanes
        start = time.perf_counter()
        team.run(read_all, data, ones)
        rates.append(data.nbytes // PIECE * PIECE / (time.perf_counter() - start) / 1e9)
    return rates[1:]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=cpu.physical_cores())
    parser.add_argument("--megabytes", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    rates = measure(options.threads, options.megabytes, options.rounds)
    median, best = statistics.median(rates), max(rates)
    print(f"{cpu.name()}: {options.threads} lanes read {median:.1f} GB/s (best {best:.1f})")
    print(json.dumps({"threads": options.threads, "gb_per_s": round(median, 2), "best_gb_per_s": round(best, 2)}))


if __name__ == "__main__":
    main()
