"""A smaller model that learns from a larger one: its sizes, its first numbers, its loss.

Here is no file and no teacher: numbers come in as arrays, and `rwkv_engine.distill` brings both together.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from .network import Network, Sizes

#: layer that a student has on top of its network while it learns hidden states; it is not exported
BRIDGE = "bridge.weight"
#: what the largest probability that is not among the likeliest may shrink to
LEAST = 1e-6
Find = Callable[[str], np.ndarray | None]


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the loss is made of.

    temperature  by which both distributions are divided before they are compared.
    top_k        tokens of the teacher's distribution that are told apart; the others count as one.
    hidden       weight of the distance between the vectors that both heads read.
    truth        share of the loss that is the text's own next token; 1: no teacher.
    """

    temperature: float = 1.0
    top_k: int = 64
    hidden: float = 0.0
    truth: float = 0.0


@dataclass(frozen=True, slots=True)
class Lesson:
    """Rows of a text, and what the teacher says of them.

    tokens  [B, T + 1] int64.    logits  [B, T, V] float32, or None.    hidden  [B, T, C] float32, or None.
    """

    tokens: np.ndarray
    logits: np.ndarray | None
    hidden: np.ndarray | None


def sizes_of(vocab: int, layers: int, width: int, ffn: int | None, teacher: Sizes | None) -> Sizes:
    """Sizes of a student; one as wide as an RWKV-7 teacher has that one's other sizes, so that layers fit.

    Otherwise widths of low-rank pairs follow the square root of the width, as in BlinkDL's models.
    """
    if teacher is not None and teacher.width == width:
        return Sizes(
            vocab,
            layers,
            width,
            ffn or teacher.ffn,
            teacher.decay,
            teacher.rate,
            teacher.residual,
            teacher.gate,
        )

    def near(rank: float) -> int:
        return max(8, 8 * round(rank / 8))

    root = math.sqrt(width)
    rate = near(1.8 * root)
    return Sizes(vocab, layers, width, ffn or 4 * width, rate, rate, near(root), near(0.6 * width**0.8))


def student_of(sizes: Sizes, seed: int, find: Find | None, layers: int, hidden: int | None) -> Network:
    """A student before its first step.

    find    the teacher's tensor of a name, or None where it has none; None: no number is the teacher's.
    layers  the teacher's.
    hidden  the teacher's width, if its hidden states are learned.
    """
    torch.manual_seed(seed)
    network = Network(sizes)
    if hidden is not None:
        network.bridge = nn.Linear(sizes.width, hidden, bias=False)
    if find is not None:
        _take_over(network, find, layers)
    return network


def _take_over(network: Network, find: Find, layers: int) -> None:
    """Copy each tensor of the teacher that has the student's shape, from the layer at the same height.

    A narrower student begins with the teacher's embedding and head, projected on their main directions.
    """
    own, sizes = network.state_dict(), network.sizes
    for name, tensor in own.items():
        theirs = find(_theirs(name, sizes.layers, layers))
        if theirs is not None and theirs.size == tensor.numel():
            tensor.copy_(torch.from_numpy(theirs).view_as(tensor))
        elif theirs is not None and name in ("emb.weight", "head.weight"):
            tensor.copy_(_projected(torch.from_numpy(theirs), sizes.width))


def _theirs(name: str, own: int, layers: int) -> str:
    """The teacher's name of a tensor: of the first layer for the first, of the last for the last."""
    if not name.startswith("blocks."):
        return name
    _, layer, rest = name.split(".", 2)
    return f"blocks.{round(int(layer) * (layers - 1) / max(1, own - 1))}.{rest}"


def _projected(matrix: torch.Tensor, width: int) -> torch.Tensor:
    """[V, C] on its `width` main directions, turned so that they are spread evenly over the columns."""
    directions = torch.linalg.eigh(matrix.T @ matrix)[1][:, -width:]
    turn = torch.linalg.qr(torch.randn(width, width))[0]
    return matrix @ directions @ turn


def loss_of(network: Network, lesson: Lesson, wishes: Wishes) -> tuple[torch.Tensor, torch.Tensor]:
    """(loss, share of tokens at which the student finds the teacher's likeliest token the likeliest).

    Without a teacher the text's own next token stands for that one.
    """
    device = network.head.weight.device
    tokens = torch.from_numpy(lesson.tokens).to(device)
    read = network.hidden(tokens[:, :-1])
    logits, wanted = network.head(read).float().flatten(0, 1), tokens[:, 1:].flatten()
    loss, best = torch.zeros((), device=device), wanted
    if wishes.truth > 0:
        loss = wishes.truth * F.cross_entropy(logits, wanted)
    if lesson.logits is not None:
        theirs = torch.from_numpy(lesson.logits).to(device).flatten(0, 1)
        loss = loss + (1 - wishes.truth) * divergence(logits, theirs, wishes.temperature, wishes.top_k)
        best = theirs.argmax(-1)
    if lesson.hidden is not None:
        far = torch.from_numpy(lesson.hidden).to(device)
        loss = (
            loss + wishes.hidden * (1 - F.cosine_similarity(network.bridge(read).float(), far, dim=-1)).mean()
        )
    with torch.no_grad():
        right = (logits.argmax(-1) == best).float().mean()
    return loss, right


def divergence(logits: torch.Tensor, theirs: torch.Tensor, temperature: float, top_k: int) -> torch.Tensor:
    """Mean KL of the student's distribution from the teacher's, times temperature^2; logits [N, V] both.

    The teacher's `top_k` likeliest tokens are told apart, the others are one outcome.
    """
    theirs, own = theirs / temperature, logits / temperature
    kept, places = theirs.topk(min(top_k, theirs.shape[-1]), dim=-1)
    log_p = kept - theirs.logsumexp(-1, keepdim=True)
    log_q = own.gather(-1, places) - own.logsumexp(-1, keepdim=True)
    each = (log_p.exp() * (log_p - log_q)).sum(-1)
    if top_k < theirs.shape[-1]:
        rest_p, rest_q = (1 - x.exp().sum(-1).clamp(max=1 - LEAST) for x in (log_p, log_q))
        each = each + rest_p * (rest_p / rest_q).log()
    return each.mean() * temperature**2


def numbers_of(network: Network) -> dict[str, np.ndarray]:
    """The student's tensors, float32, by BlinkDL's names."""
    return {name: x.float().cpu().numpy() for name, x in network.state_dict().items() if name != BRIDGE}
