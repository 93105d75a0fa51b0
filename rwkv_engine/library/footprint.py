"""What a published model will take on disk and in memory, estimated from its shape before it is there."""

from dataclasses import dataclass
from math import prod

from rwkv_engine.numbers.int8_layout import shape_of
from rwkv_engine.system.process import PROCESS

#: ids of the World vocabulary
VOCABULARY = 65_536


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes: `file` on disk, `memory` to run at full speed, when all but the embedding stays in memory."""

    file: int
    memory: int


def footprint(format: str, bytes: int, layers: int, width: int, vocab: int = VOCABULARY) -> Footprint:
    """Of an RWKV-7 model whose numbers have 16 bits.

    format   "int8" as `quantize` packs it, or "keep".   bytes  of its file.
    layers, width, vocab  L, C, V; the channel mix is 4 C wide.
    """
    embedding = 2 * vocab * width
    if format == "keep":
        return Footprint(bytes, bytes - embedding + PROCESS)
    matrices = (
        [(width, width)] * 4 * layers + [(4 * width, width), (width, 4 * width)] * layers + [(vocab, width)]
    )
    others = bytes - 2 * sum(map(prod, matrices))
    file = others + sum(prod(shape_of(*matrix)) for matrix in matrices)
    return Footprint(file, file - embedding + PROCESS)


def rough(format: str, bytes: int) -> Footprint:
    """The least that a model of unknown shape takes, from the bytes of its files, if its numbers have 16 bits."""
    file = bytes if format == "keep" else bytes * 17 // 32
    return Footprint(file, file + PROCESS)
