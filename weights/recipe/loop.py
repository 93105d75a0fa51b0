"""The training loop: Muon and AdamW, checkpoints that a later run goes on from.

What is trained on, the loss and the rates are the caller's. A batch must follow from the step alone: then a
run that was stopped and goes on ends with the numbers of one that was not.
"""

import ctypes
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .network import Network

CLIP = 1.0
REPORT_STEPS, KEEP_SECONDS = 50, 180.0


@dataclass
class Progress:
    """Where a training stands."""

    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is trained on, and how.

    tokens  in all.                      batch   of a step: (what `loss` takes, its tokens).
    rate    learning rate of a step.     loss    (network, batch) -> (loss, share of tokens that were right).
    name    what must be the same in a run that goes on; kept with the checkpoint.
    bf16    multiply matrices in BF16, a third faster on processors that can.
    """

    tokens: int
    batch: Callable[[Progress], tuple[Any, int]]
    rate: Callable[[Progress], float]
    loss: Callable[[Network, Any], tuple[torch.Tensor, torch.Tensor]]
    name: str = ""
    bf16: bool = False


def prepared(threads: int, device: str) -> torch.device:
    """The device of that name, after torch was told its number of threads. Raises ValueError: there is none."""
    torch.set_num_threads(threads)
    try:
        return torch.empty(1, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(str(error)) from None


def keep_memory() -> None:
    """Tell glibc to keep freed blocks: torch asks for the same large ones at every step, and fresh pages cost
    a third of it.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL("libc.so.6")
        trim_threshold, mmap_threshold = -1, -3
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, (1 << 31) - 1)


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


def name_of(kept: Path) -> str | None:
    """The name of the plan that a checkpoint is of; None where there is no checkpoint."""
    return torch.load(kept, weights_only=True).get("name", "") if kept.exists() else None


def run(kept: Path, network: Network, plan: Plan, tell: Callable[[str], None]) -> None:
    """Train until `plan.tokens` have been seen, from the checkpoint `kept` on where there is one.

    tell  is told, in a line, how far it is.
    """
    keep_memory()
    optimizers, progress = optimizers_of(network), Progress()
    if kept.exists():
        progress = _restore(kept, network, optimizers)
    sums: list[tuple[float, float]] = []
    clock = saved = time.monotonic()
    while progress.tokens < plan.tokens:
        batch, size = plan.batch(progress)
        rate = plan.rate(progress)
        sums.append(_step(network, optimizers, batch, rate, plan))
        progress.steps += 1
        progress.tokens += size
        now = time.monotonic()
        progress.seconds += now - clock
        clock = now
        if progress.steps % REPORT_STEPS == 0:
            loss, right = (sum(column) / len(sums) for column in zip(*sums, strict=True))
            tell(
                f"step {progress.steps} tokens {progress.tokens / 1e6:.2f}M of {plan.tokens / 1e6:.2f}M loss {loss:.4f} "
                f"right {right:.4f} rate {rate:.2e} {progress.tokens / progress.seconds:.0f} tokens/s"
            )
            sums = []
        if now - saved > KEEP_SECONDS:
            _save(kept, network, optimizers, progress, plan.name)
            saved = now
    _save(kept, network, optimizers, progress, plan.name)


def _save(
    path: Path, network: Network, optimizers: list[torch.optim.Optimizer], progress: Progress, name: str
) -> None:
    """Write everything that a later run needs, whole or not at all."""
    part = path.with_suffix(".part")
    states = [optimizer.state_dict() for optimizer in optimizers]
    what = {"network": network.state_dict(), "optimizers": states, "progress": vars(progress), "name": name}
    torch.save(what, part)
    os.replace(part, path)


def _restore(path: Path, network: Network, optimizers: list[torch.optim.Optimizer]) -> Progress:
    found = torch.load(path, weights_only=True)
    network.load_state_dict(found["network"])
    for optimizer, state in zip(optimizers, found["optimizers"], strict=True):
        optimizer.load_state_dict(state)
    return Progress(**found["progress"])


def _step(
    network: Network, optimizers: list[torch.optim.Optimizer], batch: Any, rate: float, plan: Plan
) -> tuple[float, float]:
    """One optimizer step: (loss, share that was right)."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
    device = network.head.weight.device.type
    with torch.autocast(device, torch.bfloat16, enabled=plan.bf16):
        loss, right = plan.loss(network, batch)
    network.zero_grad(set_to_none=False)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP)
    for optimizer in optimizers:
        optimizer.step()
    return loss.item(), right.item()
