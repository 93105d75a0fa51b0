"""State files: start from a tuned `time_state`, blend two states, look inside, convert.

A state file is what `State.save` writes: all planes of one model, with its fingerprint. A time_state file
(`checkpoints.time_state`) holds only the matrices of RWKV-5, 6 and 7, and does not name its model. Read
without its model it is a State with the one plane "wkv".
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rwkv_engine import families
from rwkv_engine import state as states
from rwkv_engine.checkpoints import Checkpoint
from rwkv_engine.checkpoints.fingerprint import fingerprint
from rwkv_engine.checkpoints.names import time_state
from rwkv_engine.checkpoints.opening import container_of
from rwkv_engine.checkpoints.safetensors_file import open_safetensors
from rwkv_engine.checkpoints.time_state import open_time_state, write_time_state
from rwkv_engine.errors import CheckpointError, OptionError, StateError, WrongShape, shown
from rwkv_engine.numbers.shapes import ModelConfig
from rwkv_engine.numbers.tensor import Tensor
from rwkv_engine.state import Plane, State, StateLayout
from rwkv_engine.system.files import expanded

MATRIX = "wkv"  #: the plane [L, H, key, value] that a time_state fills
_SMALLEST = ModelConfig("", "", 1, 1, 1, 1, 1, 1)


@dataclass(frozen=True, slots=True)
class StateFile:
    """A state file that was read.

    kind   "state" or "time_state"; a time_state's State has the one plane "wkv".
    """

    kind: str
    state: State


def layout_of(checkpoint: Checkpoint) -> StateLayout:
    """The state layout of a checkpoint, without loading the model. Raises CheckpointError."""
    config = families.config_of(checkpoint)
    return StateLayout(families.family_of(config).planes(config), fingerprint(checkpoint))


def place(state: State, layers: Mapping[int, Tensor]) -> None:
    """Write the `time_state` tensors [H, value, key] of some layers into a state. Raises WrongShape."""
    if layers and MATRIX not in state.names:
        raise WrongShape(
            f"a time_state is for RWKV-5, 6 and 7; this model's state has {', '.join(state.names)}"
        )
    for layer, tensor in layers.items():
        memory = state[MATRIX][layer]
        if tensor.shape != memory.shape:
            got, wanted = list(tensor.shape), list(memory.shape)
            raise WrongShape(
                f"tensor {tensor.name}: got shape {got}, want {wanted}",
                name=tensor.name,
                got=got,
                wanted=wanted,
            )
        memory[...] = tensor.float32().transpose(0, 2, 1)


def initial_state(checkpoint: Checkpoint, config: ModelConfig, layout: StateLayout) -> State:
    """What `Model.new_state` forks: the planes' fill, with the checkpoint's `time_state` [H, value, key]
    where there is one.
    """
    state = State.fresh(layout)
    found = {layer: checkpoint.tensors.get(time_state(layer)) for layer in range(config.layers)}
    place(state, {layer: tensor for layer, tensor in found.items() if tensor is not None})
    return state


def open_state(path: str | Path, layout: StateLayout) -> State:
    """The state in a file of either kind, for a model with this layout; a time_state has position 0.

    Raises StateError: damaged, of another model, of other shapes, or with numbers that are not finite.
    """
    path = expanded(path)
    if _kind(path) == "state":
        return _finite(states.load(path, layout), path)
    try:
        tensors = open_time_state(path)
        wanted = next((plane.shape[0] for plane in layout.planes if plane.name == MATRIX), len(tensors))
        if len(tensors) != wanted:
            raise WrongShape(
                f"got {len(tensors)} layers of time_state, want {wanted}",
                name="time_state",
                got=len(tensors),
                wanted=wanted,
            )
        state = State.fresh(layout)
        place(state, dict(enumerate(tensors)))
    except CheckpointError as error:
        raise _state_error(path, error) from None
    return _finite(state, path)


def read_state_file(path: str | Path) -> StateFile:
    """A state file of either kind, read without its model. Raises StateError as `open_state`."""
    if _kind(path) == "state":
        return StateFile("state", _finite(states.load(path, _layout_in(path)), path))
    try:
        tensors = open_time_state(path)
        state = State.fresh(StateLayout((Plane(MATRIX, (len(tensors), *tensors[0].shape)),), ""))
        place(state, dict(enumerate(tensors)))
    except CheckpointError as error:
        raise _state_error(path, error) from None
    return StateFile("time_state", _finite(state, path))


def blend(first: State, second: State, weight: float = 0.5) -> State:
    """A new state between two of one model: (1 - weight) * `first` + weight * `second`.

    weight   0 to 1; at 0 and 1 the result equals that state bit for bit. The position is the larger one.
             RWKV-4's sums, which are scaled by exp(-pp), are brought to one scale first.
    Raises   StateError (two models), OptionError (weight).
    """
    if not (math.isfinite(weight) and 0 <= weight <= 1):
        raise OptionError.of("weight", weight, "a number from 0 (all of the first) to 1 (all of the second)")
    if first.layout != second.layout:
        raise StateError(
            "the two states are of different models or shapes; only states of one model can be blended"
        )
    result = (second if weight == 1 else first).fork()
    result.position = max(first.position, second.position)
    if 0 < weight < 1:
        one, other = np.float32(1 - weight), np.float32(weight)
        result.block[:] = one * first.block + other * second.block
        if "pp" in result.names:
            _blend_sums(result, first, second, one, other)
    return result


def save_state_file(path: str | Path, file: StateFile) -> None:
    """Write a state of the kind in `file`, whole or not at all.

    A time_state keeps the matrices and drops the last inputs of each layer. Raises StateError (RWKV-4 has no
    matrices, or the name ends in .pth), CheckpointError or OSError (cannot be written).
    """
    if file.kind == "state":
        file.state.save(path)
        return
    if MATRIX not in file.state.names:
        raise StateError(
            f"a time_state holds the matrices of RWKV-5, 6 and 7; this state has {', '.join(file.state.names)}"
        )
    if Path(path).suffix in (".pth", ".pt", ".bin"):
        raise StateError(
            f"{path}: a time_state is written as safetensors; give it a name that ends in .safetensors"
        )
    write_time_state(path, np.ascontiguousarray(file.state[MATRIX].transpose(0, 1, 3, 2)))


def _kind(path: str | Path) -> str:
    """ "state" or "time_state", by the file's content; StateError for a file that cannot be read."""
    path = Path(path)
    try:
        if path.is_dir():
            raise CheckpointError("it is a folder")
        own = container_of(path) == "safetensors" and "rwkv_engine.state" in open_safetensors(path).metadata
    except CheckpointError as error:
        raise _state_error(path, error) from None
    return "state" if own else "time_state"


def _layout_in(path: str | Path) -> StateLayout:
    """The layout that a state file describes, in the order of the family that has these planes."""
    contents = open_safetensors(Path(path))
    for family in families.FAMILIES:
        planes = family.planes(_SMALLEST)
        if {plane.name for plane in planes} == contents.tensors.keys():
            shaped = tuple(replace(plane, shape=contents.tensors[plane.name].shape) for plane in planes)
            return StateLayout(shaped, contents.metadata.get("fingerprint", ""))
    raise StateError(
        f"{path}: no family of RWKV has the planes {', '.join(map(shown, sorted(contents.tensors)[:4]))}"
    )


def _state_error(path: str | Path, error: CheckpointError) -> StateError:
    text = str(error).rstrip(".")
    text = text if str(path) in text else f"{path}: {text}"
    return StateError(text, path=path, name=error.name, got=error.got, wanted=error.wanted)


def _finite(state: State, path: str | Path) -> State:
    for name in state.names:
        if not np.isfinite(state[name]).all():
            raise StateError(
                f"{path}: state plane {name} has NaN or infinite numbers; use another copy, or a fresh state",
                path=path,
                name=name,
            )
    return state


def _blend_sums(result: State, first: State, second: State, one: np.float32, other: np.float32) -> None:
    """RWKV-4's numerator and denominator, both scaled by exp(-pp): blended at the larger pp."""
    scale = np.maximum(first["pp"], second["pp"])
    left, right = one * np.exp(first["pp"] - scale), other * np.exp(second["pp"] - scale)
    for name in ("aa", "bb"):
        result[name][...] = left * first[name] + right * second[name]
    result["pp"][...] = scale
