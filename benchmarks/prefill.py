"""Tokens per second of reading a prompt beside the bound: the multiplications that the kernels' tiles can do.

    python benchmarks/prefill.py MODEL [--weights int8] [--threads 2] [--prompt 512] [--rounds 5]

The bound is what the same code reaches on a matrix that stays in the second-level cache
(benchmarks/kernels.py), over the multiplications of the model's matrices for one token; the recurrence and
all else are left out. Last line: JSON.
"""

import argparse
import json
import statistics

from kernels import peak

import rwkv_engine
from rwkv_engine.bench.speed import Runner
from rwkv_engine.families.loader import is_matrix
from rwkv_engine.system import cpu


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?")
    parser.add_argument("--weights")
    parser.add_argument("--threads", type=int, default=cpu.physical_cores())
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    model = rwkv_engine.load(options.model, options.weights, options.threads)
    runner = Runner(model)
    each = sum(
        t.shape[0] * t.shape[1]
        for name, t in model.checkpoint.tensors.items()
        if is_matrix(name, t) and name != "head.weight"
    )
    speeds, peaks = [], []
    for _ in range(options.rounds):
        peaks.append(peak(model.format, options.threads))
        speeds.append(options.prompt / runner.prefill(options.prompt))
    speed, most = statistics.median(speeds), statistics.median(peaks)
    done = speed * each / 1e9
    print(
        f"{speed:.0f} tokens/s; bound {most * 1e9 / each:.0f}: {done:.0f} of {most:.0f} G multiplications/s = {done / most:.0%}"
    )
    report = {
        "model": str(options.model),
        "format": model.format,
        "threads": options.threads,
        "prompt": options.prompt,
        "prefill_tps": round(speed, 1),
        "gmac_per_s": round(done, 1),
        "peak_gmac_per_s": round(most, 1),
        "share_of_peak": round(done / most, 3),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
