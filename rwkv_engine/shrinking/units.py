"""What the hidden units of one channel mix do on a text: the sums that say which of them matter, and what
replaces the others.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np

from rwkv_engine import families
from rwkv_engine.checkpoints import Checkpoint
from rwkv_engine.checkpoints.names import layer_of, matrices
from rwkv_engine.families.loader import Loader
from rwkv_engine.families.passes import new_words, tell
from rwkv_engine.families.program import arguments, step
from rwkv_engine.formats import own_format
from rwkv_engine.numbers.shapes import CHUNK
from rwkv_engine.running.machinery import room_for_model
from rwkv_engine.running.team import Team
from rwkv_engine.state import State, StateLayout
from rwkv_engine.system import cpu

#: tokens whose products are summed in float32 before their sum goes into a float64
ROWS = 8 * CHUNK
#: what is added to the diagonal of the sums, as a share of its mean: units that always fire together have no
#: one answer
RIDGE = 1e-7


def products(
    checkpoint: Checkpoint, layer: int, passes: Iterable[np.ndarray], threads: int | None = None
) -> np.ndarray:
    """[F, F] float64: the sum over a text of u u', u being the hidden units of a layer's channel mix after
    relu^2.

    The program is run on a model that ends at this layer: its work array then holds the layer's hidden units.
    The memory is that of the result, whatever the length of the text.
    """
    config = dataclasses.replace(families.config_of(checkpoint), layers=layer + 1)
    part = {name: t for name, t in checkpoint.tensors.items() if (layer_of(name) or 0) <= layer}
    family, words = families.family_of(config), new_words()
    loader = Loader(part, layer + 1, own_format(matrices(part)).name)  # a GGUF's exact numbers
    prepared = family.prepare(loader, config)
    scratch, planes = family.scratch(config, prepared, CHUNK), family.planes(config)
    team = Team(cpu.lanes() if threads is None else threads, room_for_model(config))
    frozen = arguments(planes, prepared, scratch, words)
    state, nothing = State.fresh(StateLayout(planes, "")), np.empty((0, config.vocab), np.float32)
    total, rows, filled = np.zeros((config.ffn, config.ffn)), np.empty((ROWS, config.ffn), np.float32), 0
    for ids in passes:
        tell(words, ids, ids, (0, len(ids)), [state.block.ctypes.data], (), nothing)
        team.run(step, frozen)
        rows[filled : filled + len(ids)] = scratch.f[: len(ids)]
        filled += len(ids)
        if filled > ROWS - CHUNK:
            total += rows[:filled].T @ rows[:filled]
            filled = 0
    total += rows[:filled].T @ rows[:filled]
    return total


def chosen_units(sums: np.ndarray, value: np.ndarray, keep: int) -> np.ndarray:
    """[keep] int64, ascending: the units with the most energy of relu^2 times the size of their output; value
    [C, F] float32.
    """
    energy = np.diag(sums) * (value.astype(np.float64) ** 2).sum(0)
    return np.sort(np.argsort(-energy, kind="stable")[:keep])


def refitted(sums: np.ndarray, value: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """[C, keep] float32: the matrix over the kept units whose output is nearest, in least squares, to that of
    value [C, F] over all.
    """
    gone = np.setdiff1d(np.arange(len(sums)), kept)
    own = sums[np.ix_(kept, kept)]
    own[np.diag_indices(len(kept))] += RIDGE * max(float(np.diag(own).mean()), 1e-30)
    moved = np.linalg.solve(own, sums[np.ix_(kept, gone)] @ value[:, gone].T.astype(np.float64)).T
    return (value[:, kept] + moved).astype(np.float32)
