"""How many hidden units of the channel mix are zero after relu^2, layer by layer: what skipping them could
save.
"""

import dataclasses
from math import prod

import numpy as np

from rwkv_engine import families
from rwkv_engine.checkpoints import Checkpoint
from rwkv_engine.checkpoints.names import layer_of, skips_zeros
from rwkv_engine.families.loader import Loader
from rwkv_engine.families.passes import new_words, tell
from rwkv_engine.families.program import arguments, step
from rwkv_engine.formats import format_named
from rwkv_engine.running.machinery import room_for_model
from rwkv_engine.running.team import Team
from rwkv_engine.state import State, StateLayout


def skippable_bytes(checkpoint: Checkpoint, weights: str) -> int:
    """Bytes of a model run in the format `weights` that are not read where hidden units are zero."""
    by_units = format_named(weights).by_units
    return sum(
        prod(tensor.shape)
        for name, tensor in checkpoint.tensors.items()
        if by_units is not None and skips_zeros(name) and tensor.format in (None, by_units)
    )


def ffn_zeros(checkpoint: Checkpoint, weights: str | None, tokens: list[int]) -> list[float]:
    """For each layer, the share [0, 1] of hidden units that are zero, over all `tokens` (at most a chunk),
    from an empty state.

    The program is run once for each layer, on a model that ends there: its work array then holds that layer's
    hidden units.
    """
    whole = families.config_of(checkpoint)
    family = families.family_of(whole)
    words, no_logits = new_words(), np.empty((0, whole.vocab), np.float32)
    shares = []
    for layers in range(1, whole.layers + 1):
        part = {name: t for name, t in checkpoint.tensors.items() if (layer_of(name) or 0) < layers}
        config = dataclasses.replace(whole, layers=layers)
        loader = Loader(part, layers, weights)
        prepared = family.prepare(loader, config)
        scratch = family.scratch(config, prepared, len(tokens))
        planes, ids = family.planes(config), np.array(tokens, np.int64)
        state = State.fresh(StateLayout(planes, ""))
        tell(words, ids, ids, (0, len(tokens)), [state.block.ctypes.data], (), no_logits)
        Team(1, room_for_model(config)).run(step, arguments(planes, prepared, scratch, words))
        shares.append(float((scratch.f[: len(tokens)] == 0).mean()))
    return shares
