"""`Family`: what a generation of RWKV has to tell the engine."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rwkv_engine.families.loader import Loader
from rwkv_engine.numbers.shapes import ModelConfig
from rwkv_engine.numbers.tensor import Tensor
from rwkv_engine.state import Plane

Tensors = Mapping[str, Tensor]
#: tokens of a head that are worked on together, and how many vectors [N] of work space a lane has for them
HEAD_TOKENS = 8
HEAD_VECTORS = 7 * HEAD_TOKENS


@dataclass(frozen=True, slots=True)
class Family:
    """One row of `families.FAMILIES`.

    name     as in ModelConfig.family.
    marks    whether a checkpoint's tensors are of this family.
    infer    sizes from shapes.
    planes   the state's planes, in the order in which `step` finds them in its block.
    prepare  tensors -> the NamedTuple of weights that `step` is compiled for.
    scratch  (config, weights, tokens of the longest call) -> the NamedTuple of work arrays.
    step     the compiled program: step(lane, Frozen(weights, scratch, words)), words being those of `passes`. It runs the pass that they
             tell and, in lanes that wait for more, the next ones.
    """

    name: str
    marks: Callable[[Tensors], bool]
    infer: Callable[[Tensors], ModelConfig]
    planes: Callable[[ModelConfig], tuple[Plane, ...]]
    prepare: Callable[[Loader, ModelConfig], Any]
    scratch: Callable[[ModelConfig, Any, int], Any]
    step: Callable[..., None]


def heads_planes(config: ModelConfig) -> tuple[Plane, ...]:
    """The planes of every family with matrix-valued heads (v5, v6, v7); wkv [L, H, key channel, value channel]."""
    shift = (config.layers, config.width)
    matrix = (config.layers, config.heads, config.head_size, config.head_size)
    return Plane("att_prev", shift), Plane("ffn_prev", shift), Plane("wkv", matrix)


def zeros(*shape: int) -> np.ndarray:
    """float32 work array."""
    return np.zeros(shape, np.float32)
