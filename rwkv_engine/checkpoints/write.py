"""Write safetensors files, one tensor at a time, completely or not at all."""

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
    """Write the tensors to `path`; whatever happens, it holds either its old content or all of the new.

    tensors   name -> Tensor of any element type; each is read (`bits()`) when it is written and then
              released, so only one is in memory at a time.
    metadata  text metadata.
    align     bytes, a power of two. The data starts at a multiple of it, and so do all tensors whose size is
              a multiple of it; they come first, as the format allows no padding. The rest follow, larger
              elements first.
    Raises    CheckpointError (cannot be written), or any error from reading a tensor; no partial file
              remains.
    """
    try:
        write_whole(path, safetensors_parts(tensors, metadata, align))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written: {error}; choose another place.") from error
