"""Training: what the embedded model is trained on, and when.

    python -m rwkv_engine_weights.recipe.train RUN_FOLDER --tokenizer tokenizer.json --seed 1 --tokens 21000000

The schedule is by tokens, in STAGES. Called again with the same folder it goes on where it stopped.
"""

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch
from tokenizers import Tokenizer
from torch.nn import functional as F

from .corpus import ANSWER_WEIGHT, Encoder, batch
from .loop import Plan, Progress, run
from .network import Network, Sizes


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the training: the tokens at its end, learning rates at start and end, how often each (mix,
    rows, length) is drawn.
    """

    until: float
    rates: tuple[float, float]
    shapes: dict[tuple[str, int, int], int]


# 1,536 tokens a step each. Pairs come first: until things are looked up by name, guessing at what was said
# last is what talks teach.
SHORT, TALK, MIXED, LONG, FAR = (
    ("short", 12, 128),
    ("talk", 6, 256),
    ("mixed", 4, 384),
    ("long", 1, 1536),
    ("far", 1, 1536),
)
PAIRS, RECALL, STORIES = ("pairs", 12, 128), ("recall", 6, 256), ("stories", 6, 256)
STAGES = (
    Stage(4.0e6, (2e-3, 2e-3), {PAIRS: 1}),
    Stage(5.5e6, (2e-3, 2e-3), {PAIRS: 1, RECALL: 3}),
    Stage(8.0e6, (2e-3, 2e-3), {SHORT: 4, PAIRS: 1, RECALL: 3, MIXED: 2}),
    Stage(10.5e6, (2e-3, 2e-3), {SHORT: 2, TALK: 2, MIXED: 3, LONG: 2, RECALL: 2, PAIRS: 1}),
    Stage(18.5e6, (2e-3, 0), {SHORT: 1, TALK: 5, MIXED: 2, LONG: 1, FAR: 3, RECALL: 2}),
    Stage(18.6e6, (0, 1e-3), {PAIRS: 3, RECALL: 2, TALK: 4, FAR: 2, STORIES: 3}),
    Stage(21.0e6, (1e-3, 0), {PAIRS: 3, RECALL: 2, TALK: 4, FAR: 2, STORIES: 3}),
)
TOKENS = int(STAGES[-1].until)
WARM_UP_STEPS = 100


def stage_of(progress: Progress, tokens: int) -> tuple[Stage, float]:
    """(the stage of the next step, its learning rate) when the stages are stretched to `tokens` in all."""
    place, start = progress.tokens * TOKENS / tokens, 0.0
    for stage in STAGES:
        if place < stage.until:
            break
        start = stage.until
    first, last = stage.rates
    warm = min(1.0, (progress.steps + 1) / WARM_UP_STEPS)
    return stage, warm * (first + (last - first) * min(1.0, (place - start) / (stage.until - start)))


def train(folder: Path, tokenizer: Tokenizer, seed: int, tokens: int, bf16: bool = False) -> Network:
    """Train in `folder` until `tokens` have been seen; `bf16` multiplies matrices in BF16, a third faster on
    processors that can.
    """
    torch.set_num_threads(2)
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    network, encode = Network(Sizes()), Encoder(tokenizer)

    def batch_of(progress: Progress) -> tuple[Any, int]:
        rng, (stage, _) = Random(f"training {seed} {progress.steps}"), stage_of(progress, tokens)
        mix, rows, length = rng.choices(list(stage.shapes), list(stage.shapes.values()))[0]
        return batch(rng, encode, rows, length, mix), rows * length

    plan = Plan(tokens, batch_of, lambda progress: stage_of(progress, tokens)[1], weighted_loss, bf16=bf16)
    run(folder / "checkpoint.pt", network, plan, partial(print, flush=True))
    return network


def weighted_loss(network: Network, data: tuple) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[type-arg]
    """Cross-entropy of (inputs, targets, weights), and the share of answer tokens that were predicted right."""
    inputs, targets, weights = (torch.from_numpy(x) for x in data)
    logits = network(inputs).float().flatten(0, 1)
    wanted, weight = targets.flatten(), weights.flatten()
    loss = (F.cross_entropy(logits, wanted, reduction="none") * weight).sum() / weight.sum()
    with torch.no_grad():
        answers = weight == ANSWER_WEIGHT
        right = (logits[answers].argmax(-1) == wanted[answers]).float().mean()
    return loss, right if answers.any() else torch.ones(())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--bf16", action="store_true", help="multiply matrices in BF16")
    options = parser.parse_args()
    train(
        options.folder,
        Tokenizer.from_file(str(options.tokenizer)),
        options.seed,
        options.tokens,
        options.bf16,
    )


if __name__ == "__main__":
    main()
