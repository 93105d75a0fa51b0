"""`Family`: what the engine must know about one generation of RWKV."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rwkv_engine.families.loader import Loader
from rwkv_engine.numbers.shapes import ModelConfig
from rwkv_engine.numbers.tensor import Tensor
from rwkv_engine.state import Plane

Tensors = Mapping[str, Tensor]
#: the first two planes of every family's state: the previous inputs of both mixes
ATT_PREV, FFN_PREV = 0, 1


@dataclass(frozen=True, slots=True)
class Family:
    """One row of `families.FAMILIES`.

    name     as in ModelConfig.family.
    marks    whether a checkpoint's tensors are of this family.
    infer    sizes from shapes.
    planes   the state's planes, in the order of its block.
    prepare  tensors -> the NamedTuple of weights; its type selects the mixes in `program.step`.
    scratch  (config, weights, tokens of the longest call) -> the NamedTuple of work arrays.
    reads    name endings (after `blocks.N.`) of the tensors it reads; other tensors are refused.
    """

    name: str
    marks: Callable[[Tensors], bool]
    infer: Callable[[Tensors], ModelConfig]
    planes: Callable[[ModelConfig], tuple[Plane, ...]]
    prepare: Callable[[Loader, ModelConfig], Any]
    scratch: Callable[[ModelConfig, Any, int], Any]
    reads: frozenset[str]


def tails(norms: str, matrices: str, others: str) -> frozenset[str]:
    """`Family.reads` from names separated by spaces; norms and matrices are given without .weight, .bias."""
    parts = [f"{norm}.{part}" for norm in norms.split() for part in ("weight", "bias")]
    return frozenset([*parts, *(f"{matrix}.weight" for matrix in matrices.split()), *others.split()])


def zeros(*shape: int) -> np.ndarray:
    """A float32 work array."""
    return np.zeros(shape, np.float32)
