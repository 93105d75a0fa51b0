"""LoRA: low-rank additions to a model's matrices, W + B A alpha / r, merged while the model is loaded.

Files hold `X.lora_A` [r, in] and `X.lora_B` [out, r] for the matrix `X.weight`, and full tensors that were
trained too and replace the model's (RWKV-PEFT@26f8bd0 merge/merge.py; RWKV-LM-LoRA is the same). A Hugging
Face PEFT folder is also accepted: names end in `.lora_A.weight`, and adapter_config.json has alpha.
"""

import dataclasses
import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rwkv_engine.checkpoints.checkpoint import Checkpoint, Merge
from rwkv_engine.checkpoints.layouts import bare
from rwkv_engine.checkpoints.names import EMBEDDING, is_matrix, is_time_state, is_unread
from rwkv_engine.checkpoints.opening import OPENERS, container_of
from rwkv_engine.errors import CheckpointError, OptionError, UnknownLayout, WrongShape, about, shown
from rwkv_engine.numbers.bf16 import float32_to_bf16
from rwkv_engine.numbers.tensor import Tensor
from rwkv_engine.system.json_text import parsed

_PART = re.compile(r"(?P<target>.+)\.lora_(?P<half>[AB])(?:\.default)?(?:\.weight)?")
#: files of a PEFT folder: the weights in either container, and the settings
_ADAPTERS, _SETTINGS = ("adapter_model.safetensors", "adapter_model.bin"), "adapter_config.json"
_SETTINGS_LIMIT = 1 << 20  #: bytes
#: PEFT settings that may change the formula -> the value that does not
_PLAIN = {
    "use_rslora": False, "use_dora": False, "fan_in_fan_out": False, "alpha_pattern": {}, "rank_pattern": {}, "peft_type": "LORA",
}  # fmt: skip
#: numbers merged at a time
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class _Pair:
    """The addition to one matrix: scale * up [out, r] @ down [r, in]."""

    down: Tensor
    up: Tensor
    scale: float


def with_lora(checkpoint: Checkpoint, path: str | Path, alpha: float | None, exact: bool) -> Checkpoint:
    """The checkpoint with a LoRA merged into its matrices; each one is merged when it is read.

    path    a file (safetensors or .pth), or a PEFT folder.
    alpha   None: take it from adapter_config.json in the folder.
    exact   whether merged matrices are float32, for conversion to another format, or rounded to the stored
            type.
    Raises  CheckpointError (damaged file, not a LoRA of this model), OptionError (alpha, a packed model).
    """
    path = Path(path)
    if checkpoint.packing is not None:
        raise OptionError(
            f"{checkpoint.path} is packed and takes no LoRA; give the checkpoint that it was made of"
        )
    with about(path):
        file, chosen = _file(path, _number(alpha))
        theirs = bare(file, OPENERS[container_of(file)](file).tensors)
        pairs, whole = _sorted(checkpoint, theirs, chosen)
    tensors = dict(checkpoint.tensors)
    for name, pair in pairs.items():
        tensors[name] = _merged(tensors[name], pair, exact)
    for name, tensor in whole.items():
        shape = tensors[name].shape if name in tensors else tensor.shape
        tensors[name] = dataclasses.replace(tensor, shape=shape, bits=_reshaped(tensor, shape))
    recipe = f"lora {_digest(theirs)} alpha {chosen!r}"
    made = frozenset([*pairs, *whole])
    return dataclasses.replace(checkpoint, tensors=tensors, merge=Merge(checkpoint, recipe, made))


def _number(alpha: float | None) -> float | None:
    if alpha is None:
        return None
    try:
        value = float(alpha)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not 0 < abs(value) < 1e6:
        raise OptionError.of("lora_alpha", alpha, "a number other than 0, such as 32")
    return value


def _file(path: Path, alpha: float | None) -> tuple[Path, float]:
    """(the file of tensors, alpha)."""
    if path.is_dir():
        found = next((path / name for name in _ADAPTERS if (path / name).is_file()), None)
        if found is None:
            raise CheckpointError(f"{path} holds no {_ADAPTERS[0]}; give the file of the LoRA itself")
        said = _said(path / _SETTINGS)
        return found, said if alpha is None else alpha
    if not path.is_file():
        raise CheckpointError(f"{path} is no file; give the path of a LoRA")
    if alpha is None:
        raise OptionError(
            f"{path} does not say its alpha; give lora_alpha (--lora-alpha) as it was trained with"
        )
    return path, alpha


def _said(settings: Path) -> float:
    """The alpha of a PEFT folder. Raises CheckpointError if its formula is not plain LoRA."""
    try:
        with settings.open("rb") as file:
            found = parsed(file.read(_SETTINGS_LIMIT))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{settings} cannot be read as JSON: {str(error)[:80]}") from error
    alpha = found.get("lora_alpha") if isinstance(found, dict) else None
    if not isinstance(alpha, int | float) or not 0 < abs(alpha) < 1e6:
        raise CheckpointError(f"{settings} has no number lora_alpha; give --lora-alpha")
    for key, plain in _PLAIN.items():
        if found.get(key, plain) not in (plain, None):
            raise CheckpointError(
                f"{settings}: {key} is {shown(found[key])}, which is no plain LoRA; merge it with PEFT"
            )
    return float(alpha)


def _sorted(
    checkpoint: Checkpoint, theirs: Mapping[str, Tensor], alpha: float
) -> tuple[dict[str, _Pair], dict[str, Tensor]]:
    """(additions to matrices, replaced tensors), both by canonical name. Raises CheckpointError."""
    names = _names(checkpoint)
    halves: dict[str, dict[str, Tensor]] = {}
    whole: dict[str, Tensor] = {}
    for name, tensor in theirs.items():
        part = _PART.fullmatch(name)
        target = names.get(f"{part['target']}.weight" if part else name)
        if part and target is not None and is_matrix(target, checkpoint.tensors[target]):
            if part["half"] in halves.setdefault(target, {}):
                raise CheckpointError(f"two tensors both are {shown(name)}")
            halves[target][part["half"]] = tensor
        elif not part and (is_time_state(name) or target is not None):
            whole[target or name] = _fitting(checkpoint, target, tensor)
        elif not (is_unread(name) and not part):
            raise UnknownLayout(
                f"tensor {shown(name)} is no plain LoRA of a matrix of {checkpoint.path}; merge it with the program that trained it"
            )
    if not halves:
        raise UnknownLayout(
            f"it holds no LoRA: want tensors such as blocks.0.att.key.lora_A, got {len(theirs)} others"
        )
    return {name: _pair(name, checkpoint.tensors[name], both, alpha) for name, both in halves.items()}, whole


def _names(checkpoint: Checkpoint) -> dict[str, str]:
    """Names that a LoRA may use -> canonical names; the model file's own names are accepted too."""
    own = {tensor.name: name for name, tensor in checkpoint.tensors.items()}
    stripped = bare(checkpoint.path, {theirs: checkpoint.tensors[name] for theirs, name in own.items()})
    called = {theirs: own[tensor.name] for theirs, tensor in stripped.items()}
    return {**called, **{name: name for name in checkpoint.tensors}}


def _fitting(checkpoint: Checkpoint, target: str | None, tensor: Tensor) -> Tensor:
    """The tensor, if it can replace the model's: it must have the same number of elements."""
    ours = checkpoint.tensors[target] if target is not None else tensor
    if math.prod(ours.shape) != math.prod(tensor.shape) or (
        len(ours.shape) == len(tensor.shape) and ours.shape != tensor.shape
    ):
        raise _wrong(tensor, list(ours.shape))
    if target == EMBEDDING and ours.dtype != tensor.dtype:
        raise CheckpointError(f"tensor {shown(tensor.name)} is {tensor.dtype}, the model's {ours.dtype}")
    return tensor


def _pair(name: str, matrix: Tensor, halves: Mapping[str, Tensor], alpha: float) -> _Pair:
    """Both halves of one matrix's LoRA, checked."""
    missing = {"A", "B"} - halves.keys()
    if missing:
        raise CheckpointError(f"the LoRA of {shown(name)} lacks lora_{missing.pop()}; get the file again")
    down, up = halves["A"], halves["B"]
    rank = down.shape[0] if len(down.shape) == 2 else 0
    if rank == 0 or down.shape != (rank, matrix.shape[1]):
        raise _wrong(down, ["r", matrix.shape[1]])
    if up.shape != (matrix.shape[0], rank):
        raise _wrong(up, [matrix.shape[0], rank])
    return _Pair(down, up, alpha / rank)


def _merged(tensor: Tensor, pair: _Pair, exact: bool) -> Tensor:
    dtype = "F32" if exact else tensor.dtype
    element = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}[dtype]

    def bits() -> np.ndarray:
        read, out = tensor.rows(), np.empty(tensor.shape, element)
        down = pair.down.float32().astype(np.float64)
        up = pair.up.float32().astype(np.float64) * pair.scale
        step = max(1, _PIECE // tensor.shape[1])
        for first in range(0, tensor.shape[0], step):
            rows = read(first, first + step) + up[first : first + step] @ down
            with np.errstate(over="ignore"):  # the format reports infinities
                out[first : first + step] = (
                    float32_to_bf16(rows.astype(np.float32)) if dtype == "BF16" else rows.astype(element)
                )
        return out

    return Tensor(tensor.name, tensor.shape, dtype, bits, kind=tensor.kind)


def _reshaped(tensor: Tensor, shape: tuple[int, ...]):  # type: ignore[no-untyped-def]
    return lambda: tensor.bits().reshape(shape)


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of all numbers."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {list(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(np.ascontiguousarray(tensor.bits()).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _wrong(tensor: Tensor, wanted: list[object] | list[int]) -> WrongShape:
    got = list(tensor.shape)
    return WrongShape(
        f"tensor {shown(tensor.name)} has shape {got}, wanted {wanted}; it is a LoRA of another model",
        name=tensor.name,
        got=got,
        wanted=wanted,
    )
