"""BlinkDL's tensor names: a tensor's layer, and whether it is a matrix, a low-rank half or a tuned state."""

import re
from collections.abc import Mapping

from rwkv_engine.numbers.format import Format
from rwkv_engine.numbers.tensor import Tensor

EMBEDDING, HEAD = "emb.weight", "head.weight"
#: tensors outside the layers' formulas
LN0 = ("blocks.0.ln0.weight", "blocks.0.ln0.bias")
ENDS = frozenset({EMBEDDING, HEAD, "ln_out.weight", "ln_out.bias", *LN0})
#: shape of ln0's tensors if the embedding already includes ln0: no model has width 1
FOLDED_SHAPE = (1,)
#: the head is quantized too if the vocabulary has at least this many tokens
SMALL_VOCABULARY = 8192
#: low-rank halves by their name in the time mix -> the axis of the model's width C: 0 in first halves [C, R]
WIDTH_AXIS = {
    "time_maa_w1": 0, "time_maa_w2": 2, "time_decay_w1": 0, "time_decay_w2": 1,
    "w1": 0, "w2": 1, "a1": 0, "a2": 1, "v1": 0, "v2": 1, "g1": 0, "g2": 1,
}  # fmt: skip
_LAYER = re.compile(r"blocks\.(0|[1-9][0-9]{0,4})\.")
_UNREAD = re.compile(r"blocks\.0\.att\.v[012]")


def layer_of(name: str) -> int | None:
    """The layer a tensor belongs to; None for the embedding, the head, and tensors of no model."""
    found = _LAYER.match(name)
    return int(found[1]) if found else None


def is_matrix(name: str, tensor: Tensor) -> bool:
    """Whether a tensor is one of the matrices that a model's weight format is about: all but tables and
    low-rank pairs.
    """
    return name.endswith(".weight") and len(tensor.shape) == 2 and not is_table(name)


def is_table(name: str) -> bool:
    """Whether a token reads one row of a tensor: the embedding, and a layer's DeepEmbed of RWKV-7a."""
    return name == EMBEDDING or (layer_of(name) is not None and name.endswith(".ffn.s_emb.weight"))


def matrices(tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """The matrices in a checkpoint's tensors."""
    return [tensor for name, tensor in tensors.items() if is_matrix(name, tensor)]


def keeps_its_precision(name: str, tensor: Tensor) -> bool:
    """Whether quantizing leaves a matrix as it is: true for the head of a small vocabulary.

    The head is then small, and its rounding errors go straight to the logits (measured: 99 % of the 8-bit
    loss of a small RWKV-7).
    """
    return name == HEAD and tensor.shape[0] < SMALL_VOCABULARY


def is_quantized(name: str, tensor: Tensor) -> bool:
    """Whether `quantize` packs a tensor."""
    return is_matrix(name, tensor) and not keeps_its_precision(name, tensor)


def skips_zeros(name: str) -> bool:
    """Whether most inputs of a matrix are zero: those of a channel mix's second one are squared ReLUs."""
    return layer_of(name) is not None and name.endswith(".ffn.value.weight")


def lies_in(name: str, format: Format) -> Format:
    """The format in which a matrix of a model in `format` is stored: by units, if it has that and skips zeros."""
    return format.by_units if format.by_units and skips_zeros(name) else format


def is_first_half(name: str) -> bool:
    """Whether a tensor is the first half [C, R] of a low-rank pair; kernels read it as [R, C]."""
    return _width_axis(name) == 0


def is_second_half(name: str) -> bool:
    """Whether a tensor is the second half [R, C] of a low-rank pair, or several halves [n, R, C]."""
    return (_width_axis(name) or 0) > 0


def _width_axis(name: str) -> int | None:
    return WIDTH_AXIS.get(name.rpartition(".att.")[2]) if layer_of(name) is not None else None


def time_state(layer: int) -> str:
    """Name of the tuned initial state [H, value, key] of a layer."""
    return f"blocks.{layer}.att.time_state"


def is_time_state(name: str) -> bool:
    """Whether a tensor is the tuned initial state of a layer."""
    layer = layer_of(name)
    return layer is not None and name == time_state(layer)


def is_unread(name: str) -> bool:
    """Whether no formula reads a tensor: v0, v1, v2 of layer 0 in RWKV-7, which files may omit."""
    return _UNREAD.fullmatch(name) is not None
