"""What a published model will take on disk and in memory, told before it is there."""

from dataclasses import dataclass

from rwkv_engine.checkpoints import Checkpoint
from rwkv_engine.formats import format_named
from rwkv_engine.running.memory import estimate
from rwkv_engine.system.process import COMPILING, PROCESS
from rwkv_engine.tools.quantize import packed_bytes

#: in place of a format's name: a model as it was published
KEEP = "keep"
#: rows and columns of a matrix by which a format is weighed
_LARGE = 1 << 12


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes: `file` on disk, `memory` to run at full speed, when all but the embedding stays in memory."""

    file: int
    memory: int


def footprint(checkpoint: Checkpoint, format: str) -> Footprint:
    """Of a checkpoint, of which only headers are read, in the format that `pull` is to make.

    Raises OptionError for an unknown one.
    """
    if format == KEEP:
        file, run = sum(tensor.nbytes for tensor in checkpoint.tensors.values()), None
    else:
        file, run = packed_bytes(checkpoint, format), format
    return Footprint(file, estimate(checkpoint, run).total + COMPILING)


def rough(format: str, bytes: int) -> Footprint:
    """The least that a model of unknown shape takes, from the bytes of its files, if its numbers have 16
    bits.
    """
    if format != KEEP:
        bytes = bytes * format_named(format).bytes_of(_LARGE, _LARGE) // (2 * _LARGE * _LARGE)
    return Footprint(bytes, bytes + PROCESS)
