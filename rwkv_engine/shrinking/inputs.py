"""What the matrices of a layer have to do on texts, beside what they do in a model that is quantized before them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
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
from rwkv_engine.numbers.fitting import Fitting
from rwkv_engine.numbers.format import Format
from rwkv_engine.numbers.shapes import CHUNK
from rwkv_engine.numbers.tensor import Tensor
from rwkv_engine.running.machinery import room_for_model
from rwkv_engine.running.team import Team
from rwkv_engine.state import State, StateLayout
from rwkv_engine.tools.quantize import coded

#: tokens whose numbers are rounded and summed together
ROWS = 8 * CHUNK
#: they are rounded to integers of this size: their products add up exactly in float64, in whatever order, so
#: the sums do not depend on the number of threads
LARGEST = 4095


class Layer:
    """The matrices of one layer, in the float model and in one whose first matrices are quantized."""

    def __init__(
        self, checkpoint: Checkpoint, layer: int, format: Format, texts: Sequence[np.ndarray], threads: int
    ) -> None:
        """format  of the quantized ones.    texts  [T] int64 each: token ids, each read from an empty state."""
        config = dataclasses.replace(families.config_of(checkpoint), layers=layer + 1)
        part = {
            name: dataclasses.replace(tensor, name=name)
            for name, tensor in checkpoint.tensors.items()
            if (layer_of(name) or 0) <= layer
        }
        self._new = lambda made: _Run(part, config, format, made)
        self._texts, self._plain = texts, self._new({})
        self._team = Team(threads, room_for_model(config))

    def fittings(self, names: Sequence[str], made: Mapping[str, np.ndarray]) -> dict[str, Fitting]:
        """What these matrices have to do. made  the quantized ones of all stages before theirs."""
        plain, other = self._plain, self._new(made)
        sums = {name: _Sums(plain.watched[name], other.watched[name]) for name in names}
        for text in self._texts:
            for run in (plain, other):
                run.begin()
            for start in range(0, len(text), CHUNK):
                ids = text[start : start + CHUNK]
                for run in (plain, other):
                    run.read(self._team, ids)
                for one in sums.values():
                    one.take(len(ids))
        return {name: one.fitting() for name, one in sums.items()}


class _Run:
    """A program that ends at a layer, whose matrices are watched."""

    def __init__(
        self, part: dict[str, Tensor], config: Any, format: Format, made: Mapping[str, np.ndarray]
    ) -> None:
        self.watched: dict[str, Watched] = {}
        family, self._words = families.family_of(config), new_words()
        loader = Loader(part, config.layers, None)
        loader.format = _watching(own_format(matrices(part)), format, made, self.watched)
        prepared = family.prepare(loader, config)
        self._kept = loader.owners
        scratch, planes = family.scratch(config, prepared, CHUNK), family.planes(config)
        self._fresh: Callable[[], State] = lambda: State.fresh(StateLayout(planes, ""))
        self._frozen = arguments(planes, prepared, scratch, self._words)
        self._nothing = np.empty((0, config.vocab), np.float32)
        self._state = self._fresh()

    def begin(self) -> None:
        """A new text."""
        self._state = self._fresh()

    def read(self, team: Team, ids: np.ndarray) -> None:
        """A pass; `watched` then has what was seen in it."""
        state = self._state.block.ctypes.data
        tell(self._words, ids, ids, (0, len(ids)), [state], (), self._nothing)
        team.run(step, self._frozen)


def _watching(
    own: Format, format: Format, made: Mapping[str, np.ndarray], watched: dict[str, Watched]
) -> Format:
    """The model's own format, with matrices that are watched, and those that are made in `format`."""

    def pack(tensors: Sequence[Tensor]) -> tuple[Any, list[np.ndarray]]:
        rows, cols = tensors[0].shape
        first = [coded(tensor, format, made[tensor.name]) for tensor in tensors if tensor.name in made]
        rest = tensors[len(first) :]
        # a program's type has both kinds, so there is one of each, if only to be there
        nothing = [coded(tensors[0], format, np.zeros(format.shape_of(rows, cols), format.element))]
        inner, owners = format.pack(first or nothing)
        plain, others = own.pack(rest or tensors[-1:])
        seen = np.zeros((CHUNK, cols), np.float32), np.zeros((CHUNK, rows), np.float32)
        both = Watched(inner, plain, len(first), len(tensors) - 1, *seen, rows, cols)
        watched.setdefault(
            tensors[-1].name, both
        )  # RWKV-5.0 has its receptance stand for a gate, which is not used
        return both, [*owners, *others]

    return dataclasses.replace(own, pack=pack)


class _Sums:
    """The sums of a `Fitting`."""

    def __init__(self, plain: Watched, other: Watched) -> None:
        self._seen = plain.inputs, other.inputs, plain.stream, other.stream
        self._rows = [np.empty((ROWS, seen.shape[1]), np.float32) for seen in self._seen]
        self._filled = 0
        self._sums, self._moves = (np.zeros((plain.cols, plain.cols)) for _ in range(2))
        self._wanted = np.zeros((plain.rows, plain.cols))

    def take(self, tokens: int) -> None:
        """The numbers of a pass."""
        for rows, seen in zip(self._rows, self._seen, strict=True):
            rows[self._filled : self._filled + tokens] = seen[:tokens]
        self._filled += tokens
        if self._filled > ROWS - CHUNK:
            self._close()

    def _close(self) -> None:
        x, z, stream, theirs = (rows[: self._filled] for rows in self._rows)
        there, unit = _integers(z)
        for total, change in (
            (self._sums, z),
            (self._moves, x - z),
            (self._wanted, stream - theirs),
        ):
            whole, own = (there, unit) if change is z else _integers(change)
            total += (whole.T @ there) * own[:, None] * unit
        self._filled = 0

    def fitting(self) -> Fitting:
        """The result."""
        self._close()
        return Fitting(self._sums, self._moves, self._wanted)


def _integers(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(whole numbers [T, cols] of at most LARGEST, what one of them is worth [cols]), float64."""
    unit = np.maximum(np.abs(rows).max(axis=0, initial=0).astype(np.float64), 1e-150) / LARGEST
    return np.rint(rows / unit), unit
