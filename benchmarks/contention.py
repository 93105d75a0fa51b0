"""What decoding keeps of its speed when the machine is not its own: one core busy with another process, and
too many threads.

    python benchmarks/contention.py [MODEL] [--weights int8] [--tokens 48] [--rounds 5]

Quiet, hogged and crowded decodes take turns. Bounds: with one of n cores shared by two, (n - 0.5) / n of the
quiet speed is what the cores give; more threads than cores can at best cost nothing. Last line: JSON, ratios of
medians. Linux only (it pins the hog).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys

import rwkv_engine
from rwkv_engine.bench.speed import Runner
from rwkv_engine.system import cpu

_HOG = "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?")
    parser.add_argument("--weights")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    cores = cpu.physical_cores()
    usual, crowd = (
        Runner(rwkv_engine.load(options.model, options.weights, lanes)) for lanes in (cores, 2 * cores)
    )
    quiet, hogged, crowded = [], [], []
    for _ in range(options.rounds):
        quiet.append(usual.decode(options.tokens).speed)
        crowded.append(crowd.decode(options.tokens).speed)
        with subprocess.Popen([sys.executable, "-c", _HOG, str(min(os.sched_getaffinity(0)))]) as hog:
            hogged.append(usual.decode(options.tokens).speed)
            hog.kill()
    speed = statistics.median(quiet)
    with_hog, with_crowd = statistics.median(hogged) / speed, statistics.median(crowded) / speed
    print(
        f"quiet {speed:.1f} tokens/s with {cores} threads; one core hogged: {with_hog:.2f} of it; {2 * cores} threads: {with_crowd:.2f} of it"
    )
    print(
        json.dumps(
            {
                "lanes": cores,
                "quiet_tps": round(speed, 2),
                "hogged": round(with_hog, 3),
                "twice_the_lanes": round(with_crowd, 3),
            }
        )
    )


if __name__ == "__main__":
    main()
