"""RWKV-7 in torch, for training: BlinkDL's names and shapes, float32, a fresh state for every row.

Source: BlinkDL/RWKV-LM@524481d, RWKV-v7/rwkv_v7_demo.py, and the initial values of its train_temp.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from .recurrence import SIZE, Recurrence


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of the network; widths of the low-rank pairs for decay, learning rate, value residual and gate."""

    vocab: int = 2048
    layers: int = 3
    width: int = 256
    ffn: int = 1024
    decay: int = 32
    rate: int = 32
    residual: int = 16
    gate: int = 64


def _shift(x: torch.Tensor) -> torch.Tensor:
    """[B, T, C] moved one token on, minus itself: what the token shift mixes in."""
    return F.pad(x, (0, 0, 1, -1)) - x


def _ramp(width: int, power: float) -> torch.Tensor:
    return (torch.arange(width) / width).pow(power).view(1, 1, width)


def _orthogonal(rows: int, cols: int, gain: float) -> nn.Parameter:
    weight = torch.empty(rows, cols)
    nn.init.orthogonal_(weight, gain=gain * math.sqrt(max(rows / cols, 1)))
    return nn.Parameter(weight)


class TimeMix(nn.Module):
    """The time mix of one layer."""

    def __init__(self, sizes: Sizes, layer: int) -> None:
        super().__init__()
        c, depth = sizes.width, layer / max(1, sizes.layers - 1)
        rest = 1 - layer / sizes.layers
        for name, power in (
            ("x_r", 0.2),
            ("x_w", 0.9),
            ("x_k", 0.7),
            ("x_v", 0.7),
            ("x_a", 0.9),
            ("x_g", 0.2),
        ):
            setattr(self, name, nn.Parameter(1 - _ramp(c, power * rest)))
        place = torch.arange(c)
        zigzag = ((place % SIZE) - (SIZE - 1) / 2) / ((SIZE - 1) / 2)
        zigzag = zigzag * zigzag.abs()
        linear = place / (c - 1) - 0.5
        decay = -6 + 6 * (place / (c - 1)) ** (1 + depth**0.3)
        self.w0 = nn.Parameter((decay + 0.5 + zigzag * 2.5).view(1, 1, c))
        self.a0 = nn.Parameter((-0.19 + zigzag * 0.3 + linear * 0.4).view(1, 1, c))
        self.v0 = nn.Parameter((0.73 - linear * 0.4).view(1, 1, c))
        for name, rank in (("w", sizes.decay), ("a", sizes.rate), ("v", sizes.residual), ("g", sizes.gate)):
            setattr(self, name + "1", nn.Parameter(torch.zeros(c, rank)))
            setattr(self, name + "2", _orthogonal(rank, c, 0.1))
        self.k_k = nn.Parameter((0.71 - linear * 0.1).view(1, 1, c))
        self.k_a = nn.Parameter(torch.full((1, 1, c), 1.02))
        self.r_k = nn.Parameter(torch.full((c // SIZE, SIZE), -0.04))
        self.receptance, self.key, self.value, self.output = (nn.Linear(c, c, bias=False) for _ in range(4))
        for linear_layer, gain in ((self.receptance, 0.5), (self.key, 0.05), (self.value, 0.5)):
            nn.init.uniform_(linear_layer.weight, -gain / math.sqrt(c), gain / math.sqrt(c))
        nn.init.zeros_(self.output.weight)
        self.ln_x = nn.GroupNorm(c // SIZE, c, eps=64e-5)
        nn.init.constant_(self.ln_x.weight, ((1 + layer) / sizes.layers) ** 0.7)

    def forward(self, x: torch.Tensor, v_first: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """(output [B, T, C], the value of layer 0)."""
        rows, steps, c = x.shape
        sx = _shift(x)
        r = self.receptance(torch.addcmul(x, sx, self.x_r))
        k = self.key(torch.addcmul(x, sx, self.x_k))
        xv = torch.addcmul(x, sx, self.x_v)
        v = self.value(xv)
        w = torch.exp(
            -0.606531
            * torch.sigmoid(self.w0 + torch.tanh(torch.addcmul(x, sx, self.x_w) @ self.w1) @ self.w2)
        )
        a = torch.sigmoid(self.a0 + torch.addcmul(x, sx, self.x_a) @ self.a1 @ self.a2)
        g = torch.sigmoid(torch.addcmul(x, sx, self.x_g) @ self.g1) @ self.g2
        if v_first is None:
            v_first = v
        else:
            v = v + (v_first - v) * torch.sigmoid(self.v0 + xv @ self.v1 @ self.v2)
        heads = (rows, steps, c // SIZE, SIZE)
        kk = F.normalize((k * self.k_k).view(heads), dim=-1, eps=1e-12)
        k = k * torch.addcmul(1 - self.k_a, a, self.k_a)
        r, k, v = r.view(heads), k.view(heads), v.view(heads)
        y = Recurrence.apply(r, w.view(heads), k, v, -kk, kk * a.view(heads))
        y = self.ln_x(y.reshape(rows * steps, c)).view(heads)
        y = y + (r * k * self.r_k).sum(-1, keepdim=True) * v
        return self.output(y.view(rows, steps, c) * g), v_first


class ChannelMix(nn.Module):
    """The channel mix of one layer."""

    def __init__(self, sizes: Sizes, layer: int) -> None:
        super().__init__()
        c = sizes.width
        self.x_k = nn.Parameter(1 - _ramp(c, (1 - layer / sizes.layers) ** 4))
        self.key, self.value = nn.Linear(c, sizes.ffn, bias=False), nn.Linear(sizes.ffn, c, bias=False)
        nn.init.uniform_(self.key.weight, -0.5 / math.sqrt(c), 0.5 / math.sqrt(c))
        nn.init.zeros_(self.value.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Output [B, T, C]."""
        return self.value(torch.relu(self.key(torch.addcmul(x, _shift(x), self.x_k))).square())


class Block(nn.Module):
    """One layer."""

    def __init__(self, sizes: Sizes, layer: int) -> None:
        super().__init__()
        if layer == 0:
            self.ln0 = nn.LayerNorm(sizes.width)
        self.ln1, self.ln2 = nn.LayerNorm(sizes.width), nn.LayerNorm(sizes.width)
        self.att, self.ffn = TimeMix(sizes, layer), ChannelMix(sizes, layer)


class Network(nn.Module):
    """The whole model: tokens [B, T] -> logits [B, T, V]."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.emb = nn.Embedding(sizes.vocab, sizes.width)
        nn.init.uniform_(self.emb.weight, -1e-2, 1e-2)
        self.blocks = nn.ModuleList(Block(sizes, layer) for layer in range(sizes.layers))
        self.ln_out = nn.LayerNorm(sizes.width)
        self.head = nn.Linear(sizes.width, sizes.vocab, bias=False)
        nn.init.orthogonal_(self.head.weight, gain=0.5 * math.sqrt(max(1, sizes.vocab / sizes.width)))

    def hidden(self, tokens: torch.Tensor) -> torch.Tensor:
        """What the head reads, [B, T, C]."""
        x = self.blocks[0].ln0(self.emb(tokens))
        v_first = None
        for block in self.blocks:
            change, v_first = block.att(block.ln1(x), v_first)
            x = x + change
            x = x + block.ffn(block.ln2(x))
        return self.ln_out(x)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits [B, T, V]."""
        return self.head(self.hidden(tokens))
