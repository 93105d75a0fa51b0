"""What the matrices of some layers are multiplied by on a text: the sums of products that say which of their
errors matter.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rwkv_engine import families
from rwkv_engine.checkpoints import Checkpoint
from rwkv_engine.checkpoints.names import layer_of, matrices
from rwkv_engine.families.loader import Loader
from rwkv_engine.families.passes import new_words, tell
from rwkv_engine.families.program import arguments, step
from rwkv_engine.formats import own_format
from rwkv_engine.kernels.watching import Watched
from rwkv_engine.numbers.format import Format
from rwkv_engine.numbers.shapes import CHUNK
from rwkv_engine.numbers.tensor import Tensor
from rwkv_engine.running.machinery import room_for_model
from rwkv_engine.running.team import Team
from rwkv_engine.state import State, StateLayout
from rwkv_engine.system import cpu

#: tokens whose inputs are rounded and summed together
ROWS = 8 * CHUNK
#: inputs are rounded to integers of this size: their products add up exactly in float64, in whatever order,
#: so the sums do not depend on the number of threads
LARGEST = 2047


class _Sums:
    """The sum of x x' over the inputs x of one matrix."""

    def __init__(self, seen: np.ndarray) -> None:
        cols = seen.shape[1]
        self.seen, self.total = seen, np.zeros((cols, cols))
        self._rows, self._filled = np.empty((ROWS, cols), np.float32), 0

    def take(self, tokens: int) -> None:
        """The inputs of a pass."""
        self._rows[self._filled : self._filled + tokens] = self.seen[:tokens]
        self._filled += tokens
        if self._filled > ROWS - CHUNK:
            self.close()

    def close(self) -> None:
        rows = self._rows[: self._filled].astype(np.float64)
        unit = np.maximum(np.abs(rows).max(axis=0, initial=0), 1e-30) / LARGEST
        whole = np.rint(rows / unit)
        self.total += (whole.T @ whole) * unit[:, None] * unit
        self._filled = 0


def products(
    checkpoint: Checkpoint,
    first: int,
    last: int,
    wanted: Sequence[str],
    texts: Sequence[np.ndarray],
    threads: int | None = None,
) -> dict[str, np.ndarray]:
    """[cols, cols] float64 of each of the matrices `wanted` of layers [first, last): the sum of x x' over
    texts, x being what the matrix is multiplied by.

    texts  [T] int64 each: token ids, each read from an empty state.
    The memory is that of the result, whatever the length of the texts. It does not depend on `threads`.
    """
    config = dataclasses.replace(families.config_of(checkpoint), layers=last)
    part = {
        name: dataclasses.replace(tensor, name=name)
        for name, tensor in checkpoint.tensors.items()
        if (layer_of(name) or 0) < last
    }
    family, words, seen = families.family_of(config), new_words(), dict[str, np.ndarray]()
    loader = Loader(part, last, None)
    loader.format = _watching(own_format(matrices(part)), first, seen)
    prepared = family.prepare(loader, config)
    scratch, planes = family.scratch(config, prepared, CHUNK), family.planes(config)
    team = Team(cpu.lanes() if threads is None else threads, room_for_model(config))
    frozen = arguments(planes, prepared, scratch, words)
    sums = {name: _Sums(seen[name]) for name in wanted if name in seen}
    nothing = np.empty((0, config.vocab), np.float32)
    for text in texts:
        state = State.fresh(StateLayout(planes, ""))
        for start in range(0, len(text), CHUNK):
            ids = text[start : start + CHUNK]
            tell(words, ids, ids, (0, len(ids)), [state.block.ctypes.data], (), nothing)
            team.run(step, frozen)
            for one in sums.values():
                one.take(len(ids))
    for one in sums.values():
        one.close()
    return {name: one.total for name, one in sums.items()}


def _watching(format: Format, first: int, seen: dict[str, np.ndarray]) -> Format:
    """The format with matrices whose inputs are written down, in `seen` by their names."""

    def pack(tensors: Sequence[Tensor]) -> tuple[Any, list[np.ndarray]]:
        inner, owners = format.pack(tensors)
        inputs = np.zeros((max(1, len(tensors) - first), CHUNK, inner.cols), np.float32)
        seen.update({tensor.name: part for tensor, part in zip(tensors[first:], inputs, strict=False)})
        return Watched(inner, inputs, first, inner.rows, inner.cols), owners

    return dataclasses.replace(format, pack=pack)


def groups_of(tensors: Mapping[str, Tensor], names: Sequence[str], room: int) -> list[tuple[int, int]]:
    """Layers [first, last) whose sums take at most `room` bytes together, one layer at least."""
    sizes: dict[int, int] = {}
    for name in names:
        layer = layer_of(name)
        assert layer is not None
        sizes[layer] = sizes.get(layer, 0) + 8 * tensors[name].shape[1] ** 2
    groups: list[tuple[int, int]] = []
    filled = 0
    for layer in range(max(sizes, default=-1) + 1):
        filled += sizes.get(layer, 0)
        if groups and filled <= room:
            groups[-1] = groups[-1][0], layer + 1
        else:
            groups.append((layer, layer + 1))
            filled = sizes.get(layer, 0)
    return groups
