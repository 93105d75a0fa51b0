"""Estimates a model's memory before it is loaded, and chooses what stays resident under a limit.

It counts physical memory as the system does for a process: private bytes, and pages of mapped files that were
touched. A text touches only its tokens' rows of the embedding, so a mapped embedding counts nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from rwkv_engine import families
from rwkv_engine.checkpoints import Checkpoint
from rwkv_engine.checkpoints.names import (
    EMBEDDING,
    is_first_half,
    is_matrix,
    is_quantized,
    is_second_half,
    is_table,
    lies_in,
    matrices,
)
from rwkv_engine.errors import OptionError
from rwkv_engine.formats import DEFAULT, FORMATS, format_for, format_named, own_format, table_format
from rwkv_engine.numbers.format import Format
from rwkv_engine.numbers.shapes import CHUNK, ModelConfig
from rwkv_engine.numbers.sizes import mb
from rwkv_engine.numbers.tensor import Tensor
from rwkv_engine.system.pages import HERE, is_mapped
from rwkv_engine.system.process import BASE, LINKING, TOKENIZER

#: part of the limit that is kept free, because estimates are not exact
SLACK = 0.04


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes of a loaded model that has read a long prompt.

    format     of the matrices.
    base       Python, libraries and compiled programs, including the tokenizer.
    private    weights that had to be converted or rearranged.
    mapped     weights read where the file is mapped, without the embedding; pages of these can be given back.
    embedding  of the mapped file, with other tables, of which a text touches its tokens' rows; not part of
               the total.
    window     the most mapped weights that one stage of a pass reads: where not all stay resident, these do
               for that long.
    state      of one conversation, twice: a copy is kept to go back to.
    scratch    work arrays.
    """

    format: str
    base: int
    private: int
    mapped: int
    embedding: int
    window: int
    state: int
    scratch: int

    @property
    def total(self) -> int:
        """Everything but the embedding."""
        return self.base + self.private + self.mapped + self.state + self.scratch

    @property
    def linking(self) -> int:
        """The most before mapped weights are read: while the first program is linked."""
        return self.base + self.private + (LINKING if HERE else 0)

    @property
    def peak(self) -> int:
        """The most at any time, if nothing has to be compiled."""
        return max(self.total, self.linking)

    @property
    def least(self) -> int:
        """The smallest possible limit: what cannot be given back, and the window."""
        return int(max(self.linking, self.total - self.mapped + min(self.window, self.mapped)) / (1 - SLACK))

    def sum(self) -> str:
        """The total as a readable sum."""
        parts = (
            ("engine", self.base),
            ("private weights", self.private),
            ("mapped weights", self.mapped),
            ("state", self.state),
        )
        shown = " + ".join(f"{mb(size)} {name}" for name, size in (*parts, ("work", self.scratch)) if size)
        return f"{shown} = {mb(self.total)}"


def estimate(
    checkpoint: Checkpoint, weights: str | None = None, *, cache: bool = True, chunk: int = CHUNK
) -> Estimate:
    """The memory of a checkpoint that is loaded in the format `weights` (None: its own); reads only headers.

    cache   whether a quantized format comes from a packed file, as `load` does it, and so is mapped.
    chunk   tokens of the longest pass.
    Raises  as `families.config_of` and `formats.format_for`.
    """
    tensors = checkpoint.tensors
    config = families.config_of(checkpoint)
    format = format_for(matrices(tensors), weights)
    packed = checkpoint.packing is not None or (cache and format.quantized)
    in_file = packed or checkpoint.container != "gguf"
    private = mapped = 0
    stages: dict[str, int] = {}
    made = checkpoint.merge.made if checkpoint.merge else frozenset()
    for key, tensor in tensors.items():
        size, stays = _one(key, tensor, format, packed, in_file and key not in made)
        if is_table(key) and stays:
            continue
        private, mapped = (private, mapped + size) if stays else (private + size, mapped)
        if stays:
            block = ".".join(key.split(".")[:3])  # one layer's time mix or channel mix; the head
            stages[block] = stages.get(block, 0) + size
    state = sum(prod(plane.shape) * 4 for plane in families.family_of(config).planes(config))
    tables = [tensor for key, tensor in tensors.items() if is_table(key)]
    embedding = (
        sum(_one(EMBEDDING, tensor, format, packed, in_file)[0] for tensor in tables) if in_file else 0
    )
    deep = [tensor for tensor in tables if tensor is not tensors[EMBEDDING]]
    read = chunk * sum(tensor.nbytes // max(1, tensor.shape[0]) for tensor in deep)
    base = (
        BASE + (TOKENIZER if config.vocab > 60_000 else 0) + (0 if HERE else LINKING)
    )  # other systems do not give it back
    window = max(stages.values(), default=0)
    return Estimate(
        format.name, base, private, mapped, embedding, window, 2 * state, _scratch(config, chunk) + read
    )


def estimates(checkpoint: Checkpoint) -> dict[str, Estimate]:
    """An estimate for every format the checkpoint can run in; a packed one has only its own."""
    own = own_format(matrices(checkpoint.tensors))
    return {name: estimate(checkpoint, name) for name in ((own.name,) if own.quantized else FORMATS)}


def _one(name: str, tensor: Tensor, format: Format, packed: bool, in_file: bool) -> tuple[int, bool]:
    """(bytes of a tensor in use, whether they are mapped)."""
    if is_quantized(name, tensor) or (is_matrix(name, tensor) and not format.quantized):
        stays = packed if format.quantized else in_file and tensor.dtype == format.tag
        return (tensor.format or lies_in(name, format)).bytes_of(*tensor.shape), stays
    if is_table(name) or is_matrix(name, tensor):
        plain = table_format([tensor], format) if is_table(name) else own_format([tensor])
        return plain.bytes_of(*tensor.shape), in_file
    if is_first_half(name):  # transposed on loading; packed files store it transposed
        return tensor.nbytes, packed
    if is_second_half(name):  # split by heads
        return tensor.nbytes, False
    return prod(tensor.shape) * 4, False


def _scratch(config: ModelConfig, chunk: int) -> int:
    """Work arrays of a pass of `chunk` tokens, logits, and the arrays of sampling."""
    return 4 * chunk * (20 * config.width + 2 * config.ffn) + 24 * config.vocab


def require(found: Estimate, ram: int) -> None:
    """Raise OptionError, with the sum, if the model needs over `ram` bytes even with pages given back."""
    if found.peak <= ram:
        return
    if found.least > ram or not HERE:
        how = (
            "while its program is linked"
            if found.linking > ram
            else "with most of the weights read anew for every token"
        )
        why = f"at least {mb(found.least)} {how}" if HERE else "all of it on this system"
        advice = "" if format_named(found.format).quantized else f"; --weights {DEFAULT} takes less"
        raise OptionError(
            f"ram: got {mb(ram)}, the model in {found.format} takes {found.sum()}, and needs {why}{advice}"
        )


def left_to_the_page_cache(owners: Sequence[np.ndarray], found: Estimate, ram: int) -> list[np.ndarray]:
    """Weights whose pages are given back after each stage to stay under `ram` bytes; none if all may stay.

    owners  arrays of a loaded model's weights, in the order they are given up: embedding, head, layers'
            matrices.
    """
    mapped = [array for array in owners if is_mapped(array)]
    kept = sum(array.nbytes for array in mapped)
    spare = int(ram * (1 - SLACK)) - (found.total - found.mapped)
    left: list[np.ndarray] = []
    for array in mapped:
        window = found.window if any(one is not owners[0] for one in left) else 0
        if kept + window <= spare:
            break
        left.append(array)
        kept -= array.nbytes
    return left
