"""`quantize`: a checkpoint into a packed file of the engine's own, tensor by tensor; and the cache of such files."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from rwkv_engine import families
from rwkv_engine.checkpoints import Checkpoint, open_checkpoint
from rwkv_engine.checkpoints.checkpoint import Packing
from rwkv_engine.checkpoints.fingerprint import fingerprint
from rwkv_engine.checkpoints.packed_file import VERSION, write_packed
from rwkv_engine.errors import CheckpointError, OptionError
from rwkv_engine.families.loader import is_matrix, keeps_its_precision
from rwkv_engine.formats import QUANTIZED
from rwkv_engine.formats.int8 import packed_matrix
from rwkv_engine.numbers.shapes import ModelConfig
from rwkv_engine.numbers.tensor import Tensor, one_at_a_time
from rwkv_engine.system.files import cache_folder, remove_leftovers
from rwkv_engine.text import find_tokenizer, packable
from rwkv_engine.text.chat import template_for
from rwkv_engine.text.templates import packable_template

#: tells how many bytes of the result were just made
Progress = Callable[[int], None]
_TIME_STATE = re.compile(r"blocks\.\d+\.att\.time_state")
#: first halves of low-rank pairs, [C, R], which the kernels read as [R, C]
_FIRST_HALF = re.compile(r"blocks\.\d+\.att\.(?:[wavg]1|time_decay_w1|time_maa_w1)")


def quantize(
    checkpoint: Checkpoint,
    target: str | Path,
    format: str = "int8",
    *,
    tokenizer: str | Path | None = None,
    template: str | None = None,
    progress: Progress | None = None,
) -> None:
    """Write a checkpoint to `target` with packed matrices; see `rwkv_engine.quantize`."""
    target = Path(target)
    _require_quantized(format)
    if checkpoint.packing is not None:
        raise OptionError(f"{checkpoint.path} is already packed; quantize the checkpoint that it was made of")
    if target.exists() and target.samefile(checkpoint.path):
        raise OptionError(f"{target}: source and target are the same file; give the target another name")
    if not target.absolute().parent.is_dir():
        raise OptionError(f"{target.absolute().parent} is no folder; make it first")
    config = _config(checkpoint)
    chosen = find_tokenizer(config.vocab, checkpoint.files, tokenizer)
    form = template_for(config.vocab).name if template is None else packable_template(template)
    packing = Packing(fingerprint(checkpoint), packable(chosen), form)
    _write(target, checkpoint.tensors, packing, progress)


def packed_bytes(checkpoint: Checkpoint) -> int:
    """Bytes that `quantize` will make of a checkpoint, for a progress bar. Raises CheckpointError."""
    return sum(tensor.nbytes for tensor in _packed(checkpoint.tensors, None).values())


def cached(checkpoint: Checkpoint, format: str) -> Checkpoint:
    """The same model with packed matrices, from the user's cache folder; made there first if it is missing or damaged.

    Where nothing can be written, it is `checkpoint` itself, which is then quantized in memory every time. Initial states and the
    tokenizer always come from `checkpoint`. Raises OptionError for a format that is not quantized.
    """
    _require_quantized(format)
    own = {name: tensor for name, tensor in checkpoint.tensors.items() if _TIME_STATE.fullmatch(name)}
    others = {name: tensor for name, tensor in checkpoint.tensors.items() if name not in own}
    name = fingerprint(checkpoint)
    packed = None
    try:
        path = cache_folder() / f"{name}-{format}-{VERSION}.safetensors"
        packed = _open_whole(path, name)
        if packed is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, others, Packing(name, None, template_for(_config(checkpoint).vocab).name), None)
            packed = _open_whole(path, name)
    except (OSError, CheckpointError):  # a full disk, a folder that is not ours, no home: go without
        packed = None
    if packed is None:
        return checkpoint
    return dataclasses.replace(checkpoint, tensors={**packed.tensors, **own}, packing=packed.packing)


def _open_whole(path: Path, name: str) -> Checkpoint | None:
    """The packed file at `path`, if it is there, whole, and of the model with this fingerprint."""
    try:
        found = open_checkpoint(path)
    except CheckpointError:
        return None
    return found if found.packing is not None and found.packing.fingerprint == name else None


def _config(checkpoint: Checkpoint) -> ModelConfig:
    return families.detect(checkpoint.tensors).infer(checkpoint.tensors)


def _require_quantized(format: str) -> None:
    if format not in QUANTIZED:
        raise OptionError(f"format: got {format!r}, want one of {', '.join(QUANTIZED)}")


def _write(target: Path, tensors: Mapping[str, Tensor], packing: Packing, progress: Progress | None) -> None:
    remove_leftovers(target)
    halves = frozenset(
        name for name, tensor in tensors.items() if _FIRST_HALF.fullmatch(name) and len(tensor.shape) == 2
    )
    write_packed(target, _packed(one_at_a_time(tensors, stay=False), progress), halves, packing)


def _packed(tensors: Mapping[str, Tensor], progress: Progress | None) -> dict[str, Tensor]:
    """All tensors as they go into the file: matrices quantized when their turn comes."""
    result = {}
    for name, tensor in tensors.items():
        chosen = is_matrix(name, tensor) and not keeps_its_precision(name, tensor)
        result[name] = _counted(_int8(tensor) if chosen else tensor, progress)
    return result


def _int8(tensor: Tensor) -> Tensor:
    return Tensor(tensor.name, tensor.shape, "INT8", lambda: packed_matrix(tensor))


def _counted(tensor: Tensor, progress: Progress | None) -> Tensor:
    """The tensor, telling `progress` when it has been read."""
    if progress is None:
        return tensor

    def bits() -> np.ndarray:
        made = tensor.bits()
        progress(tensor.nbytes)
        return made

    return dataclasses.replace(tensor, bits=bits)
