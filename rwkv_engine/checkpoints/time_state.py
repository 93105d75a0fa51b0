"""Tuned initial states: files with only `blocks.N.att.time_state` [H, N, N], stored apart from the model.

BlinkDL's trainers write them as .pth; safetensors files with the same names work too. Value channels come
before key channels in every family: RWKV-5 and 6 transpose the matrices on loading, RWKV-7 does not
(ChatRWKV@965e40b, rwkv_pip_package).
"""

from pathlib import Path

import numpy as np

from rwkv_engine.checkpoints.layouts import bare
from rwkv_engine.checkpoints.names import is_time_state, time_state
from rwkv_engine.checkpoints.opening import OPENERS, container_of
from rwkv_engine.checkpoints.write import write_safetensors
from rwkv_engine.errors import CheckpointError, MissingTensor, UnknownLayout, WrongShape, shown
from rwkv_engine.numbers.container import stored
from rwkv_engine.numbers.tensor import Tensor


def open_time_state(path: str | Path) -> tuple[Tensor, ...]:
    """The tensors of a file with a `time_state` and nothing else, in layer order; not read yet.

    Raises UnknownLayout (other tensors), MissingTensor (a missing layer), WrongShape (layers differ, or are
    not [H, N, N]), CheckpointError (damaged).
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path} is no file; give the path of a state file.")
    tensors = bare(path, OPENERS[container_of(path)](path).tensors)
    others = [name for name in tensors if not is_time_state(name)]
    if others or not tensors:
        what = f"it holds {shown(others[0])}" if others else "it holds nothing"
        raise UnknownLayout(f"{path} is no state file: {what}, wanted blocks.N.att.time_state alone.")
    for layer in range(len(tensors)):
        if time_state(layer) not in tensors:
            raise MissingTensor(
                f"{path} holds {len(tensors)} layers of time_state, but none for layer {layer}; the file is incomplete."
            )
    found = tuple(tensors[time_state(layer)] for layer in range(len(tensors)))
    for tensor in found:
        if len(tensor.shape) != 3 or tensor.shape[1] != tensor.shape[2] or tensor.shape != found[0].shape:
            raise WrongShape(
                f"{path}: tensor {shown(tensor.name)} has shape {list(tensor.shape)}, wanted [heads, size, size], the same in all layers."
            )
    return found


def write_time_state(path: str | Path, layers: np.ndarray) -> None:
    """Write [L, H, value, key] float32 as a time_state in safetensors, completely or not at all.

    Raises CheckpointError.
    """
    write_safetensors(
        path, {time_state(n): stored(time_state(n), "F32", matrix) for n, matrix in enumerate(layers)}
    )
