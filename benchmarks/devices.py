"""What to expect of small computers and laptops, computed from their memory's width and clock.

    python benchmarks/devices.py        # prints the tables of docs/small-computers.md; docs/make.py puts them there

A decoded token reads every weight but the embedding once, so tokens per second <= bandwidth / bytes. Shapes are those of the published
RWKV-7 models; bytes and memory come from `rwkv_engine.memory`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rwkv_engine import memory
from rwkv_engine.checkpoints import Checkpoint
from rwkv_engine.numbers.sizes import mb
from rwkv_engine.numbers.tensor import Tensor
from rwkv_engine.system import process

#: layers, width, low ranks (w, a, v, g) of the published RWKV-7 models
MODELS = {
    "0.1B": (12, 768, (64, 64, 32, 128)),
    "0.4B": (24, 1024, (64, 64, 32, 128)),
    "1.5B": (24, 2048, (96, 96, 64, 256)),
    "2.9B": (32, 2560, (96, 96, 64, 320)),
}
VOCABULARY, HEAD = 65536, 64
FORMATS = ("bf16", "int8")


@dataclass(frozen=True, slots=True)
class Device:
    """A computer, and its memory interface: million transfers per second, bits wide."""

    name: str
    memory: str
    transfers: int
    bits: int

    @property
    def gb_per_s(self) -> float:
        """The interface's peak, 10^9 bytes per second."""
        return self.transfers * self.bits / 8 / 1000


DEVICES = (
    Device("Raspberry Pi 4", "LPDDR4-3200, 32 bits", 3200, 32),
    Device("Raspberry Pi 5", "LPDDR4X-4267, 32 bits", 4267, 32),
    Device("RK3588 board", "LPDDR4X-4224, 64 bits", 4224, 64),
    Device("laptop, DDR4", "DDR4-3200, 128 bits", 3200, 128),
    Device("laptop, DDR5", "DDR5-5600, 128 bits", 5600, 128),
    Device("laptop, LPDDR5", "LPDDR5-6400, 128 bits", 6400, 128),
    Device("MacBook, M1", "LPDDR4X-4266, 128 bits", 4266, 128),
)


def shapes(layers: int, width: int, ranks: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of an RWKV-7's tensors."""
    yield from (("emb.weight", (VOCABULARY, width)), ("head.weight", (VOCABULARY, width)))
    yield from (
        (f"{norm}.{part}", (width,)) for norm in ("blocks.0.ln0", "ln_out") for part in ("weight", "bias")
    )
    for layer in range(layers):
        block = f"blocks.{layer}."
        yield from (
            (f"{block}{norm}.{part}", (width,))
            for norm in ("ln1", "ln2", "att.ln_x")
            for part in ("weight", "bias")
        )
        yield from (
            (f"{block}att.{name}", (width,))
            for name in ("x_r", "x_w", "x_k", "x_v", "x_a", "x_g", "k_k", "k_a")
        )
        yield from (
            (f"{block}att.{name}.weight", (width, width)) for name in ("receptance", "key", "value", "output")
        )
        yield f"{block}att.r_k", (width // HEAD, HEAD)
        yield f"{block}ffn.x_k", (width,)
        yield from (
            (f"{block}ffn.key.weight", (4 * width, width)),
            (f"{block}ffn.value.weight", (width, 4 * width)),
        )
        for letter, rank in zip("wavg", ranks, strict=True):
            yield from ((f"{block}att.{letter}1", (width, rank)), (f"{block}att.{letter}2", (rank, width)))
            if letter != "g":
                yield f"{block}att.{letter}0", (width,)


def estimate(model: str, weights: str) -> memory.Estimate:
    """What a published size takes, without a file."""
    tensors = {
        name: Tensor(name, shape, "BF16", lambda: np.zeros(0, np.uint16))
        for name, shape in shapes(*MODELS[model])
    }
    return memory.estimate(Checkpoint(Path(model), "safetensors", "BlinkDL", tensors, {}, Path()), weights)


def document() -> str:
    """The tables of docs/small-computers.md."""
    columns = [(model, weights) for model in MODELS for weights in FORMATS]
    head = "| " + " | ".join(f"{model} {weights.upper()}" for model, weights in columns) + " |"
    rule = "|---" * len(columns) + "|"
    found = {column: estimate(*column) for column in columns}
    read = {column: one.private + one.mapped for column, one in found.items()}
    lines = [
        "## Tokens per second, at most",
        "",
        "**Computed, not measured.** A decoded token reads every weight once, except the embedding. So no engine that reads all",
        "weights can be faster than the memory bandwidth divided by the bytes of weights. The bandwidth in this table is the peak of",
        "the memory interface (transfers per second times width); the cores of a device get less. `rwkv bench` measures yours. The",
        "models are RWKV-7 at the published sizes.",
        "",
        "| device | memory | GB/s " + head,
        "|---|---|---" + rule,
    ]
    for device in DEVICES:
        speeds = " | ".join(f"{device.gb_per_s * 1e9 / read[column]:.1f}" for column in columns)
        lines.append(f"| {device.name} | {device.memory} | {device.gb_per_s:.1f} | {speeds} |")
    lines += [
        "",
        "## Memory",
        "",
        "*Needed* is the memory of the process after it has read a text. The embedding is not counted: a text touches only the rows",
        "of its tokens. *At least* is the smallest `--ram` that is accepted; most weights are then read again for each token. Compiling",
        f"takes {mb(process.COMPILING)} more, once. MB are 10^6 bytes.",
        "",
        "| " + head,
        "|---" + rule,
        "| bytes read for a token | " + " | ".join(mb(read[column]) for column in columns) + " |",
        "| needed | " + " | ".join(mb(found[column].total) for column in columns) + " |",
        "| at least | " + " | ".join(mb(found[column].least) for column in columns) + " |",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(document(), end="")
