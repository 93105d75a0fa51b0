"""python -m tests.fuzz READER --count N --seed S: see the package."""

import argparse
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "checkpoints")]


def main():
    """Run cases and tell of each finding; exit code 1 if there was one."""
    from tests.fuzz.readers import READERS
    from tests.fuzz.running import run

    options = argparse.ArgumentParser(prog="python -m tests.fuzz")
    options.add_argument("reader", nargs="*", metavar="READER", help=f"of {', '.join(READERS)}; default: all")
    options.add_argument("--count", type=int, default=1000)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--first", type=int, default=0, help="number of the first case")
    options.add_argument(
        "--seconds", type=float, default=1e9, help="stop after so long, whatever was reached"
    )
    chosen = options.parse_args()
    bad = 0
    for name in chosen.reader or READERS:
        start, reached, found = time.time(), chosen.first, []
        for reached, finding in run(name, chosen.seed, chosen.first, chosen.count, chosen.seconds):
            if finding:
                found.append(finding)
                print(f"{name} --seed {chosen.seed} --first {reached} --count 1: {finding}", flush=True)
        cases = reached + 1 - chosen.first
        print(
            f"{name}: {cases} cases, seed {chosen.seed}, {len(found)} findings, {time.time() - start:.0f} s"
        )
        bad += len(found)
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
