"""Training: batches from the corpus, AdamW, checkpoints that a later run goes on from.

    python -m rwkv_engine_weights.recipe.train RUN_FOLDER --tokenizer tokenizer.json --seed 1 --tokens 45000000

The schedule is by tokens, in STAGES. Called again with the same folder it goes on where it stopped (the order of the batches then
starts from a new seed).
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
    """A part of the training: the tokens at its end, learning rates at start and end, how often each (mix, rows, length) is drawn."""

    until: float
    rates: tuple[float, float]
    shapes: dict[tuple[str, int, int], int]


# 1,536 tokens a step each
SHORT, TALK, MIXED, LONG, FAR = ("short", 12, 128), ("talk", 6, 256), ("mixed", 4, 384), ("long", 1, 1536), ("far", 1, 1536)
STAGES = (
    Stage(1.92e6, (2e-3, 2e-3), {SHORT: 1}),
    Stage(4.80e6, (2e-3, 2e-3), {SHORT: 6, MIXED: 3, LONG: 1}),
    Stage(9.44e6, (2e-3, 2e-3), {SHORT: 3, MIXED: 4, LONG: 3}),
    Stage(11.84e6, (2e-3, 1.27e-3), {SHORT: 3, MIXED: 4, LONG: 3}),
    Stage(16.0e6, (1.27e-3, 0), {SHORT: 3, MIXED: 3, LONG: 5}),
    Stage(36.0e6, (1.5e-3, 0), {SHORT: 3, MIXED: 4, LONG: 4}),
    Stage(36.3e6, (0, 1.2e-3), {TALK: 7, FAR: 2}),
    Stage(45.0e6, (1.2e-3, 0), {TALK: 7, FAR: 2}),
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
    """Tell glibc to keep freed blocks: torch asks for the same large ones at every step, and fresh pages cost a third of it."""
    if sys.platform == "linux":
        libc = ctypes.CDLL("libc.so.6")
        trim_threshold, mmap_threshold = -1, -3
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, 1 << 31 - 1)


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


def groups(network: Network) -> list[dict[str, object]]:
    """Weight decay for the large matrices alone."""
    large = [p for n, p in network.named_parameters() if p.dim() == 2 and n.endswith(".weight") and "emb" not in n]
    chosen = {id(p) for p in large}
    rest = [p for p in network.parameters() if id(p) not in chosen]
    return [{"params": large, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]


def save(path: Path, network: Network, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    """Write everything that a later run needs, whole or not at all."""
    part = path.with_suffix(".part")
    torch.save({"network": network.state_dict(), "optimizer": optimizer.state_dict(), "progress": vars(progress)}, part)
    os.replace(part, path)


def train(folder: Path, tokenizer: Tokenizer, seed: int, tokens: int, bf16: bool = False) -> Network:
    """Train in `folder` until `tokens` have been seen; `bf16` multiplies matrices in BF16, a third faster on processors that can."""
    keep_memory()
    torch.set_num_threads(2)
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "checkpoint.pt"
    network, progress = Network(Sizes()), Progress()
    optimizer = torch.optim.AdamW(groups(network), betas=(0.9, 0.99), fused=True)
    if kept.exists():
        found = torch.load(kept, weights_only=True)
        network.load_state_dict(found["network"])
        optimizer.load_state_dict(found["optimizer"])
        progress = Progress(**found["progress"])
    rng, encode = Random(f"training {seed} {progress.steps}"), Encoder(tokenizer)
    losses: list[float] = []
    rights: list[float] = []
    clock = saved = time.monotonic()
    while progress.tokens < tokens:
        stage, rate = stage_of(progress, tokens)
        mix, rows, length = rng.choices(list(stage.shapes), list(stage.shapes.values()))[0]
        loss, right = _step(network, optimizer, batch(rng, encode, rows, length, mix), rate, bf16)
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
            save(kept, network, optimizer, progress)
            saved = now
    save(kept, network, optimizer, progress)
    return network


def _step(
    network: Network,
    optimizer: torch.optim.Optimizer,
    data: tuple,  # type: ignore[type-arg]
    lr: float,
    bf16: bool,
) -> tuple[float, float]:
    """One optimizer step; returns the loss and the share of answer tokens that were predicted right."""
    inputs, targets, weights = (torch.from_numpy(x) for x in data)
    for group in optimizer.param_groups:
        group["lr"] = lr
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logits = network(inputs).float().flatten(0, 1)
    wanted, weight = targets.flatten(), weights.flatten()
    loss = (F.cross_entropy(logits, wanted, reduction="none") * weight).sum() / weight.sum()
    optimizer.zero_grad(set_to_none=False)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP)
    optimizer.step()
    with torch.no_grad():
        answers = weight == ANSWER_WEIGHT
        right = (logits[answers].argmax(-1) == wanted[answers]).float().mean() if answers.any() else torch.ones(())
    return loss.item(), right.item()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--bf16", action="store_true", help="multiply matrices in BF16")
    options = parser.parse_args()
    train(options.folder, Tokenizer.from_file(str(options.tokenizer)), options.seed, options.tokens, options.bf16)


if __name__ == "__main__":
    main()
