"""Models that `rwkv pull` knows by a short name: BlinkDL's RWKV-7 G1 series, the newest file of each size.

Names as of October 2026. Bytes are for estimates only (the hub states the real ones when a file is pulled):
those of a file of the same shape, to the megabyte for 0.1b. All are BF16 with the World vocabulary, heads of
64 and a channel mix four times as wide.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rwkv_engine.checkpoints import Checkpoint
from rwkv_engine.checkpoints.names import EMBEDDING, HEAD
from rwkv_engine.library.footprint import Footprint, footprint
from rwkv_engine.numbers.tensor import Tensor

VOCABULARY, HEAD_SIZE = 65_536, 64
REPOSITORY = "BlinkDL/rwkv7-g1"


@dataclass(frozen=True, slots=True)
class KnownModel:
    """One row: the short name, the file in its repository, that file's bytes, and the shape that the bytes
    follow from.

    ranks  of the low-rank pairs w, a, v, g.
    """

    name: str
    file: str
    bytes: int
    layers: int
    width: int
    ranks: tuple[int, int, int, int]
    vocab: int = VOCABULARY

    @property
    def source(self) -> str:
        """As `rwkv pull` takes it: owner/repo:file."""
        return f"{REPOSITORY}:{self.file}"

    def footprint(self, format: str) -> Footprint:
        """What the model takes in a quantized format, or as it was published; see `footprint.footprint`."""
        return footprint(self.headers(), format)

    def headers(self) -> Checkpoint:
        """The model as far as it is known before it is fetched: names and shapes; no numbers can be read."""
        tensors = {name: Tensor(name, shape, "BF16", _absent) for name, shape in self._shapes()}
        return Checkpoint(Path(self.file), "torch zip", "BlinkDL", tensors, {}, Path())

    def _shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        c, f = self.width, 4 * self.width
        inside: dict[str, tuple[int, ...]] = {f"att.x_{letter}": (1, 1, c) for letter in "rwkvag"}
        inside |= {f"att.{part}": (1, 1, c) for part in ("w0", "a0", "v0", "k_k", "k_a")}
        for letter, rank in zip("wavg", self.ranks, strict=True):
            inside |= {f"att.{letter}1": (c, rank), f"att.{letter}2": (rank, c)}
        inside |= {f"att.{part}.weight": (c, c) for part in ("receptance", "key", "value", "output")}
        inside |= {
            f"{norm}.{part}": (c,) for norm in ("ln1", "ln2", "att.ln_x") for part in ("weight", "bias")
        }
        inside |= {"att.r_k": (c // HEAD_SIZE, HEAD_SIZE), "ffn.x_k": (1, 1, c)}
        inside |= {"ffn.key.weight": (f, c), "ffn.value.weight": (c, f)}
        yield from ((EMBEDDING, (self.vocab, c)), (HEAD, (self.vocab, c)))
        yield from (
            (f"{norm}.{part}", (c,)) for norm in ("blocks.0.ln0", "ln_out") for part in ("weight", "bias")
        )
        for layer in range(self.layers):
            yield from ((f"blocks.{layer}.{name}", shape) for name, shape in inside.items())


def _absent() -> np.ndarray:
    raise AssertionError("the headers of a model that was not fetched have no numbers")


KNOWN: tuple[KnownModel, ...] = (
    KnownModel("g1d-0.1b", "rwkv7-g1d-0.1b-20260129-ctx8192.pth", 382_100_000, 12, 768, (64, 64, 32, 128)),
    KnownModel("g1d-0.4b", "rwkv7-g1d-0.4b-20260210-ctx8192.pth", 901_776_749, 24, 1024, (64, 64, 32, 128)),
    KnownModel(
        "g1k-1.5b", "rwkv7-g1k-1.5b-20260930-ctx25600.pth", 3_055_444_605, 24, 2048, (96, 96, 64, 256)
    ),
    KnownModel(
        "g1k-2.9b", "rwkv7-g1k-2.9b-20260930-ctx25600.pth", 5_896_273_469, 32, 2560, (96, 96, 64, 320)
    ),
    KnownModel(
        "g1k-7.2b", "rwkv7-g1k-7.2b-20260930-ctx25600.pth", 14_400_007_869, 32, 4096, (128, 128, 96, 480)
    ),
    KnownModel(
        "g1k-13.3b", "rwkv7-g1k-13.3b-20260930-ctx25600.pth", 26_540_868_485, 61, 4096, (128, 128, 96, 480)
    ),
)


def known(name: str) -> KnownModel | None:
    """The row of that name."""
    return next((row for row in KNOWN if row.name == name), None)
