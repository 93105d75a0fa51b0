"""`Layout`: a table of how one kind of file names its tensors, and the changes its rules can make."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from rwkv_engine.checkpoints.checkpoint import Contents
from rwkv_engine.errors import CheckpointError, UnknownLayout, WrongShape, shown
from rwkv_engine.numbers.tensor import Tensor

Tensors = Mapping[str, Tensor]

NUMBER = re.compile(r"0|[1-9][0-9]{0,4}")  #: a block's number


def as_stored(tensor: Tensor) -> Tensor:
    """The tensor unchanged."""
    return tensor


def turned(tensor: Tensor) -> Tensor:
    """The tensor with its last two axes swapped, as a strided view."""
    if len(tensor.shape) < 2:
        raise _wrong(tensor, "a matrix")
    shape = (*tensor.shape[:-2], tensor.shape[-1], tensor.shape[-2])
    return Tensor(tensor.name, shape, tensor.dtype, lambda: tensor.bits().swapaxes(-1, -2))


def shaped(tensor: Tensor, *shape: int) -> Tensor:
    """The same elements in another shape."""
    if prod(shape) != prod(tensor.shape):
        raise _wrong(tensor, list(shape))
    return Tensor(tensor.name, shape, tensor.dtype, lambda: tensor.bits().reshape(shape))


def row(tensor: Tensor) -> Tensor:
    """A vector in BlinkDL's shape [1, 1, C]."""
    return shaped(tensor, 1, 1, prod(tensor.shape))


@dataclass(frozen=True, slots=True)
class Rule:
    """What to do with one tensor: its canonical name, or the names of its slices along the first axis."""

    targets: tuple[str, ...]
    change: Callable[[Tensor], Tensor] = as_stored

    def apply(self, tensor: Tensor) -> list[tuple[str, Tensor]]:
        """(canonical name, tensor) pairs. Raises WrongShape."""
        if len(self.targets) == 1:
            return [(self.targets[0], self.change(tensor))]
        if len(tensor.shape) < 2 or tensor.shape[0] != len(self.targets):
            raise _wrong(tensor, f"{len(self.targets)} rows")
        return [(target, self.change(_slice(tensor, place))) for place, target in enumerate(self.targets)]


def rule(targets: str, change: Callable[[Tensor], Tensor] = as_stored) -> Rule:
    """A Rule from names separated by spaces."""
    return Rule(tuple(targets.split()), change)


def _leave(tensors: dict[str, Tensor], contents: Contents, folder: Path) -> dict[str, Tensor]:
    return tensors


@dataclass(frozen=True, slots=True)
class Layout:
    """One row of `layouts.LAYOUTS`.

    name    as in Checkpoint.layout.
    marks   whether tensors follow this layout; must exclude the rows below it.
    block   prefix of a block's number: "blocks.", "layers.", "blk.".
    top     names outside the blocks -> Rule; targets are full canonical names.
    tails   names inside a block, after its number -> Rule; targets are the part after `blocks.N.`.
    keeps   True: a name in neither table is kept. False: it is refused, as it may be part of the formula.
    finish  (canonical tensors, contents, folder of the file) -> tensors; changes that need several names.
    """

    name: str
    marks: Callable[[Tensors], bool]
    block: str
    top: Mapping[str, Rule]
    tails: Mapping[str, Rule]
    keeps: bool = False
    finish: Callable[[dict[str, Tensor], Contents, Path], dict[str, Tensor]] = _leave


def renamed(path: Path, layout: Layout, tensors: Tensors) -> dict[str, Tensor]:
    """All tensors under canonical names; UnknownLayout, WrongShape, or CheckpointError (a name twice)."""
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        for target, changed in _canonical(path, layout, name, tensor):
            if target in result:
                raise CheckpointError(f"{path}: two tensors both are {shown(target)}; the file is damaged.")
            result[target] = changed
    return result


def _canonical(path: Path, layout: Layout, name: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
    if name in layout.top:
        return layout.top[name].apply(tensor)
    number, _, tail = name.removeprefix(layout.block).partition(".")
    in_block = name.startswith(layout.block)
    numbered = bool(NUMBER.fullmatch(number))
    if in_block and numbered and tail in layout.tails:
        return [
            (f"blocks.{number}.{target}", changed) for target, changed in layout.tails[tail].apply(tensor)
        ]
    if layout.keeps and (numbered or not in_block):
        return [(name, tensor)]
    raise UnknownLayout(
        f"{path} looks like {layout.name}, but tensor {shown(tensor.name)} has no place there; it is another model."
    )


def _wrong(tensor: Tensor, wanted: list[int] | str) -> WrongShape:
    got, name = list(tensor.shape), tensor.name
    return WrongShape(
        f"tensor {shown(name)} has shape {got}, wanted {wanted}.", name=name, got=got, wanted=wanted
    )


def _slice(tensor: Tensor, place: int) -> Tensor:
    return dataclasses.replace(tensor, shape=tensor.shape[1:], bits=lambda: tensor.bits()[place])
