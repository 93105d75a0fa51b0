"""Tokens per second of decoding beside the bound: memory bandwidth / weight bytes read per token.

    python benchmarks/decode.py MODEL [--weights bf16] [--threads 2] [--tokens 64] [--rounds 5]

Every round measures the bandwidth and a decode, one after the other, so that both see the same machine. The
bound counts all weights but the embedding once per token; activations and state are left out. Last line:
JSON.
"""

import argparse
import json
import statistics

import rwkv_engine
from rwkv_engine.bench.bandwidth import block, read_rates
from rwkv_engine.bench.speed import Runner
from rwkv_engine.system import cpu


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?")
    parser.add_argument("--weights")
    parser.add_argument("--threads", type=int, default=cpu.physical_cores())
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    model = rwkv_engine.load(options.model, options.weights, options.threads)
    runner, data = Runner(model), block()
    rates, speeds = [], []
    for _ in range(options.rounds):
        rates += read_rates(options.threads, data, 3)
        speeds.append(runner.decode(options.tokens).speed)
    rate, speed = statistics.median(rates), statistics.median(speeds)
    read = speed * model.weight_bytes / 1e9
    print(
        f"{speed:.1f} tokens/s; bound {rate * 1e9 / model.weight_bytes:.1f}: reads {read:.1f} of {rate:.1f} GB/s = {read / rate:.0%}"
    )
    report = {
        "model": str(options.model),
        "format": model.format,
        "threads": options.threads,
        "decode_tps": round(speed, 2),
        "bytes_per_token": model.weight_bytes,
        "gb_per_s": round(rate, 2),
        "share_of_bandwidth": round(read / rate, 3),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
