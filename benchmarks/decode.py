"""Tokens per second of decoding and of reading a prompt, beside the bound: memory bandwidth / weight bytes read per token.

    python benchmarks/decode.py MODEL [--weights bf16] [--threads 2] [--tokens 64] [--prompt 512] [--rounds 5]

Every round measures the bandwidth, a decode and a prompt, one after the other, so that all three see the same machine.
The bound counts all weights but the embedding once per token; activations and state are left out. Last line: JSON.
"""

import argparse
import json
import statistics
import time

import numpy as np
from bandwidth import measure

import rwkv_engine
from rwkv_engine import cpu


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--weights")
    parser.add_argument("--threads", type=int, default=cpu.physical_cores())
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    model = rwkv_engine.load(options.model, options.weights, options.threads)
    rng, state = np.random.default_rng(0), model.new_state()
    model.feed(rng.integers(1, model.config.vocab, 80), state)
    decode, prefill, bandwidth = [], [], []
    for _ in range(options.rounds):
        bandwidth += measure(options.threads, rounds=3)
        tokens = rng.integers(1, model.config.vocab, options.tokens)
        start = time.perf_counter()
        for token in tokens:
            model.feed([token], state)
        decode.append(options.tokens / (time.perf_counter() - start))
        tokens = rng.integers(1, model.config.vocab, options.prompt)
        start = time.perf_counter()
        model.feed(tokens, state)
        prefill.append(options.prompt / (time.perf_counter() - start))
    rate, speed = statistics.median(bandwidth), statistics.median(decode)
    read = speed * model.weight_bytes / 1e9
    print(f"decode   {speed:8.1f} tokens/s, reads {read:.1f} GB/s = {read / rate:.0%} of {rate:.1f} GB/s")
    print(f"prompt   {statistics.median(prefill):8.1f} tokens/s ({options.prompt} tokens)")
    report = {
        "model": str(options.model),
        "format": model.format,
        "threads": options.threads,
        "decode_tps": round(speed, 2),
        "prefill_tps": round(statistics.median(prefill), 1),
        "bytes_per_token": model.weight_bytes,
        "gb_per_s": round(rate, 2),
        "share_of_bandwidth": round(read / rate, 3),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
