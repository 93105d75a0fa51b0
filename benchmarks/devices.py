"""What to expect of small computers and laptops, computed from their memory's width and clock.

    python benchmarks/devices.py        # prints the tables of docs/small-computers.md; docs/make.py puts them there

A decoded token reads every weight but the embedding once, so tokens per second <= bandwidth / bytes. Shapes
are those of the published RWKV-7 models; bytes and memory come from `rwkv_engine.running.memory`.
"""

from dataclasses import dataclass

from rwkv_engine.library.known_models import KNOWN
from rwkv_engine.numbers.sizes import mb
from rwkv_engine.running import memory
from rwkv_engine.system import process

#: the smaller ones of the published models, by their size
MODELS = {row.name.rpartition("-")[2].upper(): row for row in KNOWN[:4]}
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


def estimate(model: str, weights: str) -> memory.Estimate:
    """What a published size takes, without a file."""
    return memory.estimate(MODELS[model].headers(), weights)


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
