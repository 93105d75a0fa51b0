"""What a published model will take on disk and in memory, estimated from its shape before it is there."""

import os
from dataclasses import dataclass
from math import prod
from pathlib import Path

from rwkv_engine.int8_layout import shape_of

#: ids of the World vocabulary
VOCABULARY = 65_536
#: bytes that Python, NumPy, numba, and the engine's compiled programs hold (measured: 3.11, numba 0.68, Linux, x86-64)
BASE = 94_000_000
#: bytes of LLVM's own code that linking a program takes, before weights are read; on Linux they are given back then
LINKING = 36_000_000
#: bytes of the World vocabulary's tables; other tokenizers take less
TOKENIZER = 8_000_000
#: what compiling a program takes on top, once: until it is in the cache
COMPILING = 172_000_000
#: bytes of a small model's state and work arrays, which `memory` adds up for each model
WORK = 14_000_000
#: what a process may come to take besides the weights
PROCESS = BASE + TOKENIZER + COMPILING + WORK
#: where a control group says how much memory its processes may use
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


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
    matrices = [(width, width)] * 4 * layers + [(4 * width, width), (width, 4 * width)] * layers + [(vocab, width)]
    others = bytes - 2 * sum(map(prod, matrices))
    file = others + sum(prod(shape_of(*matrix)) for matrix in matrices)
    return Footprint(file, file - embedding + PROCESS)


def rough(format: str, bytes: int) -> Footprint:
    """The least that a model of unknown shape takes, from the bytes of its files, if its numbers have 16 bits."""
    file = bytes if format == "keep" else bytes * 17 // 32
    return Footprint(file, file + PROCESS)


def physical_memory() -> int | None:
    """Bytes of memory that this process may use at most: the machine's, or what a container allows. None: nobody says."""
    found = []
    try:
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        pass  # not a POSIX system
    for limit in _LIMITS:
        try:
            found.append(int(limit.read_text()))
        except (OSError, ValueError):
            continue  # no such control group, or "max"
    return min((number for number in found if number > 0), default=None)
