"""What a decoded token would gain if it read the high bits of the head's codes first, and low bits only of
tokens that can still win.

    python benchmarks/head.py [MODEL] [--tokens 64] [--random 65536x1024] [--threads 2]

An INT8 code is split into its `bits` upper bits and a rest, and a row has the norm of its rest beside it. The
upper bits give an estimate of each logit, and |logit - estimate| is at most the smaller one of |rest| |x|
(Cauchy-Schwarz) and sum over groups of scale * largest rest * sum |x|. Read again are: for greedy choice, the
tokens whose logit may be the largest; for top-k, those that may be among the k largest; for top-p, the
likeliest ones, as many as it takes to be sure of the set whatever the others' logits are inside their bounds.
So all three give the full head's tokens. Logits of all tokens, as penalties on the whole vocabulary,
constraints, log-probabilities and a draft's check need them, still read everything.

The bound of what it gains: bytes that a token would not read, out of all that it reads. Reading single rows,
unpacking bits and the second pass over the vocabulary come on top. `--random` takes a head of that shape and
states of random numbers, which are the worst case: no token stands out. Last line: JSON.
"""

import argparse
import json

import numpy as np

import rwkv_engine
from rwkv_engine.evaluation.texts import EMBEDDED, passes, text_of
from rwkv_engine.numbers.bf16 import bf16_to_float32
from rwkv_engine.numbers.int8_layout import GROUP, quantized

TOP_K, TOP_P, SPLITS = 40, 0.85, (4, 5, 6)
#: bits of a weight: its code, and its share of a scale
WHOLE, SCALE = 8.5, 0.5
#: rows of the head that are split at a time
PIECE = 4096
#: layers of the published models, by their width
LAYERS = {768: 12, 1024: 24, 2048: 24, 2560: 32}


def split(head: np.ndarray, x: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(logits, estimates, bounds), all [T, V], of a head [V, C] and its inputs [T, C], both float32."""
    found: list[list[np.ndarray]] = [[], [], []]
    half = 1 << (7 - bits)
    sums = np.abs(x).reshape(len(x), -1, GROUP).sum(axis=2)
    for first in range(0, len(head), PIECE):
        rows = head[first : first + PIECE]
        codes, scale = quantized(rows.reshape(len(rows), -1, GROUP))
        wide = bf16_to_float32(scale)
        upper = (codes.astype(np.int16) + half) // (2 * half) * (2 * half)
        weights, high = ((part * wide[..., None]).reshape(rows.shape) for part in (codes, upper))
        norm = np.sqrt(((weights - high) ** 2).sum(axis=1))
        found[0].append(x @ weights.T)
        found[1].append(x @ high.T)
        found[2].append(
            np.minimum(np.linalg.norm(x, axis=1)[:, None] * norm, sums @ (wide * half).T) + np.float32(1e-4)
        )
    logits, estimates, bounds = (np.concatenate(parts, axis=1) for parts in found)
    return logits, estimates, bounds


def may_be_largest(estimate: np.ndarray, bound: np.ndarray, k: int) -> int:
    """How many tokens may be among the k with the largest logits."""
    least = np.partition(estimate - bound, -k)[-k]
    return int((estimate + bound >= least).sum())


def sure_of_top_p(logit: np.ndarray, estimate: np.ndarray, bound: np.ndarray) -> int:
    """How many tokens have to be read again to be sure which likeliest ones have a share of TOP_P together."""
    order = np.argsort(-(estimate + bound))
    peak = logit.max()
    most = np.exp((estimate + bound)[order].astype(np.float64) - peak)
    least = np.exp((estimate - bound)[order].astype(np.float64) - peak)
    above, below = most[::-1].cumsum()[::-1], least[::-1].cumsum()[::-1]
    count = 1
    while count < len(order):
        exact = np.sort(np.exp(logit[order[:count]].astype(np.float64) - peak))[::-1]
        grown = exact.cumsum()
        places = [int(np.searchsorted(grown, TOP_P * (grown[-1] + rest[count]))) for rest in (above, below)]
        if places[0] == places[1] < count and exact[places[0]] > most[count]:
            return count
        count = max(count + 1, count * 5 // 4)
    return len(order)


def measured(head: np.ndarray, x: np.ndarray, bits: int) -> dict[str, float]:
    """The share of tokens that is read again, a mean over the inputs."""
    logits, estimates, bounds = split(head, x, bits)
    assert (np.abs(logits - estimates) <= bounds).all(), "a bound is wrong"
    rows = list(zip(logits, estimates, bounds, strict=True))
    counts = {
        "greedy": [may_be_largest(e, b, 1) for _, e, b in rows],
        f"top-k {TOP_K}": [may_be_largest(e, b, TOP_K) for _, e, b in rows],
        f"top-p {TOP_P}": [sure_of_top_p(*row) for row in rows],
    }
    return {name: float(np.mean(many)) / len(head) for name, many in counts.items()}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--random", help="Rows x columns of a head of random numbers, instead of a model's.")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    if options.random:
        rows, cols = (int(length) for length in options.random.split("x"))
        rng = np.random.default_rng(0)
        head = rng.standard_normal((rows, cols), np.float32) * np.float32(2 * cols**-0.5)  # logits of size 2
        x = rng.standard_normal((options.tokens, cols), np.float32)
        whole = head.size * WHOLE / 8 * (1 + 12 * cols * LAYERS.get(cols, 24) / rows)
    else:
        model = rwkv_engine.load(options.model, threads=options.threads)
        ids, _ = next(passes(text_of(EMBEDDED), model.tokenizer, options.tokens))
        head = model.checkpoint.tensors["head.weight"].float32()
        x = model.feed_hidden(ids, model.new_state(), every=True)[1]
        whole = float(model.weight_bytes)
    share = head.size * WHOLE / 8 / whole
    print(f"head {head.shape[0]:,} x {head.shape[1]:,}, in INT8 {share:.0%} of the bytes that a token reads")
    report = []
    for bits in SPLITS:
        for name, again in measured(head, x, bits).items():
            read = (bits + SCALE + again * (8 - bits)) / WHOLE
            report.append({"bits": bits, "choice": name, "read_again": again, "gain": (1 - read) * share})
            print(
                f"{bits} bits, {name:<10} {again:8.3%} read again, {read:.0%} of the head, at most {(1 - read) * share:.1%} of a token"
            )
    print(json.dumps({"shape": head.shape, "share": share, "results": report}))


if __name__ == "__main__":
    main()
