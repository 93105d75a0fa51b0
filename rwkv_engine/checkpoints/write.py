"""Write safetensors files, one tensor at a time, whole or not at all."""

from collections.abc import Mapping
from pathlib import Path

from rwkv_engine.errors import CheckpointError
from rwkv_engine.numbers.container import safetensors_parts
from rwkv_engine.numbers.tensor import Tensor
from rwkv_engine.system.files import write_whole


def write_safetensors(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
    align: int = 64,
) -> None:
    """Write the tensors to `path`, which holds either its old content or all of the new, whatever happens.

    tensors   name -> Tensor; each is read (`bits()`) when its turn comes and then let go, so that one at a
              time is in memory. Any element type of the format.
    metadata  text notes.
    align     bytes, a power of two: the data begins at a multiple of it, and so does every tensor whose
              length is a multiple of it (these come first; the format allows no padding). The others follow,
              larger elements first.
    Raises    CheckpointError (cannot be written), or whatever reading a tensor raises; no part of a file is
              left.
    """
    try:
        write_whole(path, safetensors_parts(tensors, metadata, align))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written: {error}; choose another place.") from error
