"""Seconds from nothing to the first token, to load, and bytes of memory, beside the bound: the file's bytes.

    python benchmarks/load.py [MODEL] [--weights int8] [--threads 2] [--trials 5]

Each trial is a process of its own, the compile cache and the file in memory. A mapped model can hold no fewer
resident bytes than a token reads. Last line: JSON.
"""

import argparse
import dataclasses
import json

import rwkv_engine
from rwkv_engine.bench.process import start_of


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?")
    parser.add_argument("--weights")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--trials", type=int, default=5)
    options = parser.parse_args()
    start = start_of(options.model, options.weights, options.threads, options.trials)
    bound = rwkv_engine.load(options.model, options.weights, options.threads).weight_bytes
    print(f"first token after {start.first_token:.2f} s, load {1e3 * start.load:.1f} ms")
    if start.peak is not None and start.private is not None:
        print(
            f"most resident memory {start.peak / 1e6:.0f} MB, of it not from files {start.private / 1e6:.0f}; a token reads {bound / 1e6:.0f}"
        )
    print(json.dumps({"model": str(options.model), **dataclasses.asdict(start), "bytes_per_token": bound}))


if __name__ == "__main__":
    main()
