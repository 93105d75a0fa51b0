"""`quantize`: write a checkpoint as a packed file, tensor by tensor; and the cache of packed files."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from rwkv_engine import families
from rwkv_engine.checkpoints import Checkpoint, open_checkpoint
from rwkv_engine.checkpoints.checkpoint import Packing
from rwkv_engine.checkpoints.fingerprint import digests, fingerprint
from rwkv_engine.checkpoints.names import is_first_half, is_quantized, is_table, is_time_state, lies_in
from rwkv_engine.checkpoints.packed_file import VERSION, write_packed
from rwkv_engine.errors import CheckpointError, OptionError
from rwkv_engine.formats import DEFAULT, FORMATS, quantized_names, table_format
from rwkv_engine.numbers.format import Format
from rwkv_engine.numbers.tensor import BITS, Tensor, one_at_a_time
from rwkv_engine.system.files import remove_leftovers
from rwkv_engine.system.folders import cache_folder
from rwkv_engine.text import find_tokenizer, packable
from rwkv_engine.text.chat import template_for
from rwkv_engine.text.templates import packable_template

#: tells how many bytes of the result were just made
Progress = Callable[[int], None]
#: no matrix is made before
NOTHING: Mapping[str, np.ndarray] = {}


def quantize(
    checkpoint: Checkpoint,
    target: str | Path,
    format: str = DEFAULT,
    *,
    tokenizer: str | Path | None = None,
    template: str | None = None,
    progress: Progress | None = None,
    made: Mapping[str, np.ndarray] = NOTHING,
) -> None:
    """Write a checkpoint to `target` with packed matrices; see `rwkv_engine.quantize`.

    made  matrices by their names that are already as the format stores them.
    """
    target, wanted = Path(target), _quantized(format)
    require(checkpoint, target)
    config = families.config_of(checkpoint)
    chosen = find_tokenizer(config.vocab, checkpoint.files, tokenizer)
    form = packable_template(template, config.vocab, checkpoint.files)
    packing = Packing(fingerprint(checkpoint), packable(chosen), form)
    _write(target, checkpoint.tensors, wanted, packing, progress, made)


def require(checkpoint: Checkpoint, target: Path) -> None:
    """Raise OptionError where a checkpoint cannot be quantized, or the target not be written."""
    if checkpoint.packing is not None:
        raise OptionError(f"{checkpoint.path} is already packed; quantize the checkpoint that it was made of")
    if target.exists() and target.samefile(checkpoint.path):
        raise OptionError(f"{target}: source and target are the same file; give the target another name")
    if not target.absolute().parent.is_dir():
        raise OptionError(f"{target.absolute().parent} is no folder; make it first")


def packed_bytes(checkpoint: Checkpoint, format: str = DEFAULT) -> int:
    """Bytes that `quantize` will write, for a progress bar. Raises OptionError."""
    return sum(tensor.nbytes for tensor in _packed(checkpoint.tensors, _quantized(format), None).values())


def cached(checkpoint: Checkpoint, format: str) -> Checkpoint:
    """The same model with packed matrices, from the user's cache folder; packed there first if needed.

    If nothing can be written there, the result is `checkpoint` itself, which is then quantized in memory on
    every load. Initial states and the tokenizer always come from `checkpoint`. Raises OptionError for a
    format that is not quantized.
    """
    wanted = _quantized(format)
    own = {name: tensor for name, tensor in checkpoint.tensors.items() if is_time_state(name)}
    others = {name: tensor for name, tensor in checkpoint.tensors.items() if name not in own}
    packed = None
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        name, every_number = digests(checkpoint)
        path = cache_folder() / f"{every_number}-{format}-{VERSION}.safetensors"
        packed = _open_whole(path, name)
        if packed is None:
            template = template_for(families.config_of(checkpoint).vocab).name
            _write(path, others, wanted, Packing(name, None, template), None)
            packed = _open_whole(path, name)
    except (OSError, CheckpointError):  # a full disk, a folder that is not ours, no home: go without
        packed = None
    if packed is None:
        return checkpoint
    packing = packed.packing and dataclasses.replace(packed.packing, template=None)
    return dataclasses.replace(
        checkpoint,
        container=packed.container,
        layout=packed.layout,
        tensors={**packed.tensors, **own},
        packing=packing,
        merge=None,
    )


def _open_whole(path: Path, name: str) -> Checkpoint | None:
    """The packed file at `path`, if it exists, is complete, and has this model's fingerprint."""
    try:
        found = open_checkpoint(path)
    except CheckpointError:
        return None
    return found if found.packing is not None and found.packing.fingerprint == name else None


def _quantized(name: str) -> Format:
    if name not in quantized_names():
        raise OptionError.of("format", name, f"one of {', '.join(quantized_names())}")
    return FORMATS[name]


def _write(
    target: Path,
    tensors: Mapping[str, Tensor],
    format: Format,
    packing: Packing,
    progress: Progress | None,
    made: Mapping[str, np.ndarray] = NOTHING,
) -> None:
    remove_leftovers(target)
    halves = frozenset(
        name for name, tensor in tensors.items() if is_first_half(name) and len(tensor.shape) == 2
    )
    found = _packed(one_at_a_time(tensors, stay=False), format, progress, made)
    write_packed(target, found, halves, packing)


def _packed(
    tensors: Mapping[str, Tensor],
    format: Format,
    progress: Progress | None,
    made: Mapping[str, np.ndarray] = NOTHING,
) -> dict[str, Tensor]:
    """All tensors as the file stores them; each matrix is quantized when it is written."""
    result = {}
    for name, tensor in tensors.items():
        if name in made:
            tensor = coded(tensor, format, made[name])
        elif is_quantized(name, tensor):
            tensor = _in_format(lies_in(name, format), tensor)
        elif is_table(name) and tensor.kind is not None:
            tensor = _as_table(table_format([tensor], format), tensor)
        result[name] = _counted(tensor, progress)
    return result


def _as_table(plain: Format, tensor: Tensor) -> Tensor:
    """A table in a float format."""
    element = BITS[plain.tag]
    return Tensor(tensor.name, tensor.shape, plain.tag, lambda: plain.stored(tensor).view(element))


def _in_format(format: Format, tensor: Tensor) -> Tensor:
    return Tensor(tensor.name, tensor.shape, format.tag, lambda: format.stored(tensor), format)


def coded(tensor: Tensor, format: Format, bits: np.ndarray) -> Tensor:
    """The tensor as `format` stores it."""
    return Tensor(tensor.name, tensor.shape, format.tag, lambda: bits, format)


def _counted(tensor: Tensor, progress: Progress | None) -> Tensor:
    """The tensor; `progress` is called when it has been read."""
    if progress is None:
        return tensor

    def bits() -> np.ndarray:
        made = tensor.bits()
        progress(tensor.nbytes)
        return made

    return dataclasses.replace(tensor, bits=bits)
