"""Peak memory of a model in each weight format beside the estimate of `rwkv info --ram`.

    python benchmarks/memory.py MODEL [--weights f32 --weights int8] [--ram 900M]

Each format runs in a process of its own, twice, because the first one may have to compile or to pack: it
loads, reads a prompt of 100 tokens and writes 4. The peak is what the system counted: private memory and
every page of the mapped file that was touched. With --ram the process is held to that. Last line: JSON.
"""

import argparse
import json
import subprocess
import sys

from rwkv_engine.checkpoints import open_checkpoint
from rwkv_engine.running import memory

CHILD = """
import json, sys
import numpy as np
import rwkv_engine
from rwkv_engine.system import pages
model = rwkv_engine.load(sys.argv[1], sys.argv[2], ram=sys.argv[3] or None)
prompt = np.random.default_rng(0).integers(1, 1000, 100).tolist()
steps = list(model.generate(prompt, max_tokens=4, sampling=rwkv_engine.Sampling(temperature=0, banned=(0,))))
print(json.dumps({"peak": pages.peak(), "private": pages.private(), "tokens": len(steps)}))
"""


def measured(model: str, weights: str, ram: str) -> dict[str, int]:
    """What the second of two processes tells."""
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", CHILD, model, weights, ram], stdout=subprocess.PIPE, text=True, check=True
        )
    return json.loads(done.stdout)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--weights", action="append")
    parser.add_argument("--ram", default="")
    options = parser.parse_args()
    report = {}
    for name, found in memory.estimates(open_checkpoint(options.model)).items():
        if options.weights and name not in options.weights:
            continue
        facts = measured(options.model, name, options.ram)
        report[name] = {"estimate": found.peak, **facts, "off": round(facts["peak"] / found.peak - 1, 3)}
        peak, private = facts["peak"] / 1e6, facts["private"] / 1e6
        print(
            f"{name:<5} estimate {found.peak / 1e6:8.0f} MB, peak {peak:8.0f} MB ({report[name]['off']:+.1%}), private {private:6.0f} MB"
        )
    print(json.dumps({"model": options.model, "ram": options.ram, "formats": report}))


if __name__ == "__main__":
    main()
