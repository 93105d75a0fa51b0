"""The names of BlinkDL's tensors, once: of which layer one is, which are matrices, low-rank halves, or tuned
states.
"""

import re
from collections.abc import Mapping

from rwkv_engine.numbers.tensor import Tensor

EMBEDDING, HEAD = "emb.weight", "head.weight"
#: what stands outside of the layers' formulas
LN0 = ("blocks.0.ln0.weight", "blocks.0.ln0.bias")
ENDS = frozenset({EMBEDDING, HEAD, "ln_out.weight", "ln_out.bias", *LN0})
#: shape of ln0's tensors where the rows of the embedding have gone through it already: no model is one wide
FOLDED_SHAPE = (1,)
#: tokens of a vocabulary from which on the head is quantized too
SMALL_VOCABULARY = 8192
#: low-rank halves, as the time mix calls them -> the axis that has the model's width C: of first halves [C,
#: R] it is the first
WIDTH_AXIS = {
    "time_maa_w1": 0, "time_maa_w2": 2, "time_decay_w1": 0, "time_decay_w2": 1,
    "w1": 0, "w2": 1, "a1": 0, "a2": 1, "v1": 0, "v2": 1, "g1": 0, "g2": 1,
}  # fmt: skip
_LAYER = re.compile(r"blocks\.(0|[1-9][0-9]{0,4})\.")
_UNREAD = re.compile(r"blocks\.0\.att\.v[012]")


def layer_of(name: str) -> int | None:
    """The layer that a tensor is part of; None for the embedding, the head, and what is no model's."""
    found = _LAYER.match(name)
    return int(found[1]) if found else None


def is_matrix(name: str, tensor: Tensor) -> bool:
    """Whether a tensor is one of the matrices that a model's weight format is about: all but tables and low-rank
    pairs.
    """
    return name.endswith(".weight") and len(tensor.shape) == 2 and not is_table(name)


def is_table(name: str) -> bool:
    """Whether a token reads one row of a tensor: the embedding, and a layer's DeepEmbed of RWKV-7a."""
    return name == EMBEDDING or (layer_of(name) is not None and name.endswith(".ffn.s_emb.weight"))


def matrices(tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """The matrices among a checkpoint's tensors."""
    return [tensor for name, tensor in tensors.items() if is_matrix(name, tensor)]


def keeps_its_precision(name: str, tensor: Tensor) -> bool:
    """Whether a matrix is left as it is when a model is quantized: the head of a small vocabulary.

    Its rounding goes straight to the logits (measured: 99 % of what 8 bits lose in a small RWKV-7), and it is
    few bytes.
    """
    return name == HEAD and tensor.shape[0] < SMALL_VOCABULARY


def is_quantized(name: str, tensor: Tensor) -> bool:
    """Whether a tensor is one that `quantize` packs."""
    return is_matrix(name, tensor) and not keeps_its_precision(name, tensor)


def is_first_half(name: str) -> bool:
    """Whether a tensor is the first half [C, R] of a low-rank pair, which the kernels read as [R, C]."""
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
    """Whether a tensor is present, absent or a dummy in files of one model, because no formula reads it:
    layer 0's v0, v1, v2 of RWKV-7.
    """
    return _UNREAD.fullmatch(name) is not None
