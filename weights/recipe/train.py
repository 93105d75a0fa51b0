"""Training: batches from the corpus, Muon and AdamW, checkpoints that a later run goes on from.

    python -m rwkv_engine_weights.recipe.train RUN_FOLDER --tokenizer tokenizer.json --seed 1 --tokens 21000000

The schedule is by tokens, in STAGES. Called again with the same folder it goes on where it stopped (the order
of the batches then starts from a new seed).
"""

import argparse
import ctypes
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from tokenizers import Tokenizer
from torch.nn import functional as F

from .corpus import ANSWER_WEIGHT, Encoder, batch
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
WARM_UP_STEPS, CLIP = 100, 1.0
REPORT_STEPS, KEEP_SECONDS = 50, 180


@dataclass
class Progress:
    """Where a training stands."""

    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0


def keep_memory() -> None:
    """Tell glibc to keep freed blocks: torch asks for the same large ones at every step, and fresh pages cost
    a third of it.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL("libc.so.6")
        trim_threshold, mmap_threshold = -1, -3
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, (1 << 31) - 1)


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


def optimizers_of(network: Network) -> list[torch.optim.Optimizer]:
    """Muon for the large matrices inside the layers, AdamW for embedding, head, low-rank pairs and vectors.

    Muon's steps are scaled to the size of AdamW's, so one rate serves both. It finds out sooner how things
    are looked up by name: 92 % of the pairs right after 0.8 million tokens, where AdamW alone had 55 % after
    3.1 million.
    """
    inner, large, rest = [], [], []
    for name, parameter in network.named_parameters():
        if parameter.dim() == 2 and name.endswith(".weight") and name.startswith("blocks."):
            inner.append(parameter)
        elif name == "head.weight":
            large.append(parameter)
        else:
            rest.append(parameter)
    groups = [{"params": large, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    return [
        torch.optim.Muon(inner, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(groups, betas=(0.9, 0.99), fused=True),
    ]


def save(path: Path, network: Network, optimizers: list[torch.optim.Optimizer], progress: Progress) -> None:
    """Write everything that a later run needs, whole or not at all."""
    part = path.with_suffix(".part")
    states = [optimizer.state_dict() for optimizer in optimizers]
    torch.save({"network": network.state_dict(), "optimizers": states, "progress": vars(progress)}, part)
    os.replace(part, path)


def train(folder: Path, tokenizer: Tokenizer, seed: int, tokens: int, bf16: bool = False) -> Network:
    """Train in `folder` until `tokens` have been seen; `bf16` multiplies matrices in BF16, a third faster on
    processors that can.
    """
    keep_memory()
    torch.set_num_threads(2)
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "checkpoint.pt"
    network, progress = Network(Sizes()), Progress()
    optimizers = optimizers_of(network)
    if kept.exists():
        found = torch.load(kept, weights_only=True)
        network.load_state_dict(found["network"])
        for optimizer, state in zip(optimizers, found["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        progress = Progress(**found["progress"])
    rng, encode = Random(f"training {seed} {progress.steps}"), Encoder(tokenizer)
    losses: list[float] = []
    rights: list[float] = []
    clock = saved = time.monotonic()
    while progress.tokens < tokens:
        stage, rate = stage_of(progress, tokens)
        mix, rows, length = rng.choices(list(stage.shapes), list(stage.shapes.values()))[0]
        loss, right = _step(network, optimizers, batch(rng, encode, rows, length, mix), rate, bf16)
        losses.append(loss)
        rights.append(right)
        progress.steps += 1
        progress.tokens += rows * length
        now = time.monotonic()
        progress.seconds += now - clock
        clock = now
        if progress.steps % REPORT_STEPS == 0:
            print(
                f"step {progress.steps} tokens {progress.tokens / 1e6:.2f}M of {tokens / 1e6:.0f}M loss {sum(losses) / len(losses):.4f} "
                f"answer tokens right {sum(rights) / len(rights):.4f} rate {rate:.2e} "
                f"{progress.tokens / progress.seconds:.0f} tokens/s",
                flush=True,
            )
            losses, rights = [], []
        if now - saved > KEEP_SECONDS:
            save(kept, network, optimizers, progress)
            saved = now
    save(kept, network, optimizers, progress)
    return network


def _step(
    network: Network,
    optimizers: list[torch.optim.Optimizer],
    data: tuple,  # type: ignore[type-arg]
    lr: float,
    bf16: bool,
) -> tuple[float, float]:
    """One optimizer step; returns the loss and the share of answer tokens that were predicted right."""
    inputs, targets, weights = (torch.from_numpy(x) for x in data)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logits = network(inputs).float().flatten(0, 1)
    wanted, weight = targets.flatten(), weights.flatten()
    loss = (F.cross_entropy(logits, wanted, reduction="none") * weight).sum() / weight.sum()
    network.zero_grad(set_to_none=False)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP)
    for optimizer in optimizers:
        optimizer.step()
    with torch.no_grad():
        answers = weight == ANSWER_WEIGHT
        right = (
            (logits[answers].argmax(-1) == wanted[answers]).float().mean()
            if answers.any()
            else torch.ones(())
        )
    return loss.item(), right.item()


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
