"""Does a long text cost anything? Feeds many tokens one by one and watches memory and speed.

    python benchmarks/endurance.py [MODEL] [--tokens 100000] [--threads 1]

Bound: none of memory, speed or the finiteness of the logits may depend on how much was read, since the state
has a constant size. Last line: JSON. Resident memory from psutil, in bytes; speeds are of the first and the
last 1,000 tokens after a warm-up of 1,000.
"""

import argparse
import gc
import json
import time

import numpy as np
import psutil

import rwkv_engine


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?")
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    model = rwkv_engine.load(options.model, threads=options.threads)
    state, process = model.new_state(), psutil.Process()
    tokens = (
        np.random.default_rng(0).integers(1, model.config.vocab, (options.tokens // 1000 + 1, 1000)).tolist()
    )
    seconds = []
    for thousand in tokens:
        start = time.perf_counter()
        for token in thousand:
            logits = model.feed([token], state)
        seconds.append(time.perf_counter() - start)
        assert np.isfinite(logits).all()
        if len(seconds) == 1:
            gc.collect()
            resident = process.memory_info().rss
    gc.collect()
    grown = process.memory_info().rss - resident
    first, last = 1000 / seconds[1], 1000 / seconds[-1]
    print(
        f"{state.position} tokens: first 1,000 at {first:.0f} tokens/s, last at {last:.0f}, memory grew by {grown} bytes"
    )
    print(
        json.dumps(
            {
                "tokens": state.position,
                "first_tps": round(first),
                "last_tps": round(last),
                "grown_bytes": grown,
            }
        )
    )


if __name__ == "__main__":
    main()
