"""How fast this machine reads memory with the engine's own loads and threads: the bound of every decode figure.

    python benchmarks/bandwidth.py [--threads 2] [--rounds 9]

Last line: JSON, GB/s (10^9 bytes), median and best of the rounds.
"""

import argparse
import json
import statistics

from rwkv_engine.bench.bandwidth import block, read_rates
from rwkv_engine.system import cpu


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=cpu.physical_cores())
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    rates = read_rates(options.threads, block(), options.rounds)
    median, best = statistics.median(rates), max(rates)
    print(f"{cpu.name()}: {options.threads} threads read {median:.1f} GB/s (best {best:.1f})")
    print(
        json.dumps(
            {"threads": options.threads, "gb_per_s": round(median, 2), "best_gb_per_s": round(best, 2)}
        )
    )


if __name__ == "__main__":
    main()
