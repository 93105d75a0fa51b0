"""The program of every family: one `step`; the type of a family's Weights selects its two mixes.

Each family registers its mixes with `of`, just as a format's kernels overload `matmul`. They are not
arguments of `step`, because numba does not cache programs that take functions as arguments.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numba import types
from numba.extending import overload

from rwkv_engine.families.ends import embed, project
from rwkv_engine.families.passes import Pass, told
from rwkv_engine.kernels._jit import KERNEL, program
from rwkv_engine.kernels.calling import attend
from rwkv_engine.kernels.frozen import Frozen, thaw
from rwkv_engine.state import Plane

Function = TypeVar("Function", bound=Callable[..., None])


def time_mix(lane: Any, w: Any, s: Any, layer: int, x: Any, now: Pass) -> None:
    """x [T, C] += a layer's time mix for a Pass's tokens. Called by every lane; ends with a barrier."""
    raise TypeError(f"no time mix for weights of type {type(w).__name__}")


def channel_mix(lane: Any, w: Any, s: Any, layer: int, x: Any, now: Pass) -> None:
    """x [T, C] += a layer's channel mix for a Pass's tokens. Called by every lane; ends with a barrier."""
    raise TypeError(f"no channel mix for weights of type {type(w).__name__}")


def of(weights: type, name: Callable[..., None]) -> Callable[[Function], Function]:
    """Decorator: compiled code calls this function as `name(lane, w, ...)` if w has type `weights`."""

    def register(function: Function) -> Function:
        @overload(name, jit_options=KERNEL, strict=False)
        def choose(lane, w, *others):
            chosen = isinstance(w, types.NamedTuple) and w.instance_class is weights
            return function if chosen else None

        return function

    return register


def arguments(planes: Sequence[Plane], weights: Any, scratch: Any, words: np.ndarray) -> Frozen:
    """The arguments of `step`: a family's Weights, Scratch, words of `passes`, and places of its planes."""
    sizes = np.array([[4 * int(np.prod(p.shape)), 4 * int(np.prod(p.shape[1:]))] for p in planes], np.int64)
    places = np.stack([np.cumsum(sizes[:, 0]) - sizes[:, 0], sizes[:, 1]], axis=1)
    return Frozen(weights, scratch, words, np.ascontiguousarray(places))


@program
def step(lane, frozen):
    """All layers for all tokens of a pass; lanes that wait for another call then run the next passes.

    frozen  from `arguments`. Weights have `ends` and ln1 [L, 2, C]; Scratch has x and h, both [T, C].
    """
    w, s, words, places = thaw(frozen)
    calls = 0
    while attend(lane, calls):
        calls += 1
        now = told(words, places)
        x = s.x[: now.rows.shape[0]]
        embed(lane, x, w.ends, now.rows)
        for layer in range(w.ln1.shape[0]):
            time_mix(lane, w, s, layer, x, now)
            channel_mix(lane, w, s, layer, x, now)
        project(lane, now, w.ends, s.h, x)
