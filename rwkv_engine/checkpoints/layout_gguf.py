"""llama.cpp's names for RWKV-6 and RWKV-7 in GGUF files.

Sources: llama.cpp, gguf-py/gguf/constants.py (names) and convert_hf_to_gguf.py, Rwkv6Model and Rwkv7Model
(the conversion): low-rank matrices are transposed, the token-shift weights of a layer are joined into one
tensor, v7's r_k is flat, and v6's att.output and ffn.value of layer n are divided by
2^(n // rescale_every_n_layers).
"""

from math import prod
from pathlib import Path

from rwkv_engine.checkpoints.checkpoint import Contents
from rwkv_engine.checkpoints.gguf_file import scaled
from rwkv_engine.checkpoints.layout import Layout, Rule, row, rule, shaped, turned
from rwkv_engine.errors import CheckpointError, shown
from rwkv_engine.numbers.tensor import Tensor


def _both(theirs: str, ours: str) -> dict[str, Rule]:
    return {f"{theirs}.{part}": rule(f"{ours}.{part}") for part in ("weight", "bias")}


TOP = {
    "token_embd.weight": rule("emb.weight"),
    **_both("token_embd_norm", "blocks.0.ln0"),
    **_both("output_norm", "ln_out"),
    "output.weight": rule("head.weight"),
}
COMMON = {
    **_both("attn_norm", "ln1"), **_both("attn_norm_2", "ln2"), **_both("time_mix_ln", "att.ln_x"),
    **{f"time_mix_{part}.weight": rule(f"att.{part}.weight") for part in ("receptance", "key", "value", "output")},
    "channel_mix_key.weight": rule("ffn.key.weight"),
    "channel_mix_value.weight": rule("ffn.value.weight"),
}  # fmt: skip
V6 = {
    **COMMON,
    "time_mix_gate.weight": rule("att.gate.weight"),
    "time_mix_lerp_x.weight": rule("att.time_maa_x", row),
    "time_mix_lerp_fused.weight": rule(" ".join(f"att.time_maa_{part}" for part in "wkvrg"), row),
    **{f"time_mix_lerp_{part}.weight": rule(f"att.time_maa_{part}", row) for part in "wkvrg"},
    "time_mix_w1.weight": rule("att.time_maa_w1", turned),
    "time_mix_w2.weight": rule("att.time_maa_w2", turned),
    "time_mix_decay.weight": rule("att.time_decay", row),
    "time_mix_decay_w1.weight": rule("att.time_decay_w1", turned),
    "time_mix_decay_w2.weight": rule("att.time_decay_w2", turned),
    "time_mix_first.weight": rule("att.time_faaaa"),
    "channel_mix_lerp_k.weight": rule("ffn.time_maa_k", row),
    "channel_mix_lerp_r.weight": rule("ffn.time_maa_r", row),
    "channel_mix_receptance.weight": rule("ffn.receptance.weight"),
}
V7 = {
    **COMMON,
    "time_mix_lerp_fused.weight": rule(" ".join(f"att.x_{part}" for part in "rwkvag"), row),
    **{f"time_mix_{part}0.weight": rule(f"att.{part}0", row) for part in "wav"},
    **{f"time_mix_{part}{n}.weight": rule(f"att.{part}{n}", turned) for part in "wavg" for n in "12"},
    "time_mix_k_k.weight": rule("att.k_k", row),
    "time_mix_k_a.weight": rule("att.k_a", row),
    "time_mix_r_k.weight": rule("att.r_k"),
    "channel_mix_lerp_k.weight": rule("ffn.x_k", row),
}


def _number(contents: Contents, key: str, default: str) -> int:
    """A whole number from the file's notes."""
    text = contents.metadata.get(key, default)
    if not (text.isdecimal() and text.isascii()) or len(text) > 9:
        raise CheckpointError(
            f"the GGUF note {key} is {shown(text)}, wanted a whole number; the file is damaged."
        )
    return int(text)


def _headed(tensors: dict[str, Tensor], size: int, tail: str) -> dict[str, Tensor]:
    """`tail` of every block reshaped to [H, N], where N is `size`."""
    result = dict(tensors)
    for name, tensor in tensors.items():
        if name.endswith(tail) and size and prod(tensor.shape) % size == 0:
            result[name] = shaped(tensor, prod(tensor.shape) // size, size)
    return result


def _finish_v6(tensors: dict[str, Tensor], contents: Contents, folder: Path) -> dict[str, Tensor]:
    result = _headed(tensors, _number(contents, "rwkv6.wkv.head_size", "0"), ".att.time_faaaa")
    every = _number(contents, "rwkv6.rescale_every_n_layers", "0")
    for name, tensor in tensors.items():
        if every and name.endswith((".att.output.weight", ".ffn.value.weight")):
            halvings = int(name.split(".")[1]) // every
            if halvings > 100:
                raise CheckpointError(
                    f"tensor {shown(tensor.name)} would be rescaled by 2^{halvings}; the file is damaged."
                )
            result[name] = scaled(tensor, 2.0**halvings) if halvings else tensor
    return result


def _finish_v7(tensors: dict[str, Tensor], contents: Contents, folder: Path) -> dict[str, Tensor]:
    return _headed(tensors, _number(contents, "rwkv7.wkv.head_size", "64"), ".att.r_k")


GGUF_V6 = Layout("GGUF", lambda t: "blk.0.time_mix_decay_w1.weight" in t, "blk.", TOP, V6, finish=_finish_v6)
GGUF_V7 = Layout("GGUF", lambda t: "blk.0.time_mix_k_k.weight" in t, "blk.", TOP, V7, finish=_finish_v7)
