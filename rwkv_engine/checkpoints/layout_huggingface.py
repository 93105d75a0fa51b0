"""Names in Hugging Face folders: RwkvForCausalLM (v4), remote code of v5 and v6, and two kinds of v7.

RWKV7ForCausalLM of fla has its own names; transformers' Rwkv7ForCausalLM has BlinkDL's inside its blocks, and
its embedding already includes ln0. A leading "rwkv." or "model." is removed first.
Sources: transformers, models/rwkv; flash-linear-attention, utils/convert_from_rwkv7.py and
fla/layers/rwkv7.py: its low-rank pairs are `nn.Linear`s, so they are transposed, and the bias of the second
one is w0, a0 or v0.
"""

from pathlib import Path

import numpy as np

from rwkv_engine.checkpoints.checkpoint import Contents
from rwkv_engine.checkpoints.layout import Layout, Rule, row, rule, turned
from rwkv_engine.checkpoints.names import FOLDED_SHAPE, LN0
from rwkv_engine.errors import CheckpointError
from rwkv_engine.numbers.tensor import Tensor
from rwkv_engine.system.json_text import parsed_file


def _tied(tensors: dict[str, Tensor], contents: Contents, folder: Path) -> dict[str, Tensor]:
    """Use the embedding as head if config.json says they are tied; such files store it once."""
    if "head.weight" in tensors or "emb.weight" not in tensors:
        return tensors
    tied = _config(folder).get("tie_word_embeddings") is True
    return {**tensors, "head.weight": tensors["emb.weight"]} if tied else tensors


def _folded(tensors: dict[str, Tensor], contents: Contents, folder: Path) -> dict[str, Tensor]:
    """`_tied`, plus a mark in place of ln0 that the embedding includes it, unless config.json denies it."""
    result = _tied(tensors, contents, folder)
    if any(name in result for name in LN0) or _config(folder).get("embedding_layer_norm_fused") is False:
        return result
    return {
        **result,
        **{
            name: Tensor(name, FOLDED_SHAPE, "F32", lambda: np.ones(FOLDED_SHAPE, np.float32)) for name in LN0
        },
    }


def _config(folder: Path) -> dict[str, object]:
    """The folder's config.json; empty if there is none."""
    path = folder / "config.json"
    if not path.is_file():
        return {}
    try:
        config = parsed_file(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}; download it again.") from error
    return config if isinstance(config, dict) else {}


def _both(theirs: str, ours: str) -> dict[str, Rule]:
    """Weight and bias of a norm."""
    return {f"{theirs}.{part}": rule(f"{ours}.{part}") for part in ("weight", "bias")}


TOP = {
    "embeddings.weight": rule("emb.weight"),
    **_both("ln_out", "ln_out"),
    "head.weight": rule("head.weight"),
}
V4 = {
    **_both("pre_ln", "ln0"), **_both("ln1", "ln1"), **_both("ln2", "ln2"),
    **{f"attention.{part}.weight": rule(f"att.{part}.weight") for part in ("key", "value", "receptance", "output")},
    "attention.time_decay": rule("att.time_decay"),
    "attention.time_first": rule("att.time_first"),
    "attention.time_mix_key": rule("att.time_mix_k"),
    "attention.time_mix_value": rule("att.time_mix_v"),
    "attention.time_mix_receptance": rule("att.time_mix_r"),
    **{f"feed_forward.{part}.weight": rule(f"ffn.{part}.weight") for part in ("key", "value", "receptance")},
    "feed_forward.time_mix_key": rule("ffn.time_mix_k"),
    "feed_forward.time_mix_receptance": rule("ffn.time_mix_r"),
}  # fmt: skip
V5 = {
    **V4,
    **_both("attention.ln_x", "att.ln_x"),
    "attention.gate.weight": rule("att.gate.weight"),
    "attention.time_faaaa": rule("att.time_faaaa"),
    "attention.time_mix_gate": rule("att.time_mix_g"),
}
V6 = {
    **{name: change for name, change in V5.items() if "time_mix" not in name and "time_first" not in name},
    **{
        f"attention.time_maa_{part}": rule(f"att.time_maa_{part}")
        for part in ("x", "w", "k", "v", "r", "g", "w1", "w2")
    },
    "attention.time_decay_w1": rule("att.time_decay_w1"),
    "attention.time_decay_w2": rule("att.time_decay_w2"),
    "feed_forward.time_maa_k": rule("ffn.time_maa_k"),
    "feed_forward.time_maa_r": rule("ffn.time_maa_r"),
}
FLA_TOP = {
    "embeddings.weight": rule("emb.weight"),
    **_both("norm", "ln_out"),
    "lm_head.weight": rule("head.weight"),
}
FLA = {
    **_both("pre_norm", "ln0"), **_both("attn_norm", "ln1"), **_both("ffn_norm", "ln2"),
    "attn.x_x": rule("att.x_r att.x_w att.x_k att.x_v att.x_a att.x_g", row),
    **{f"attn.x_{part}": rule(f"att.x_{part}", row) for part in "rwkvag"},
    **{f"attn.{part}_lora.lora.0.weight": rule(f"att.{part}1", turned) for part in "wavg"},
    **{f"attn.{part}_lora.lora.2.weight": rule(f"att.{part}2", turned) for part in "wavg"},
    **{f"attn.{part}_lora.lora.2.bias": rule(f"att.{part}0", row) for part in "wav"},
    "attn.k_k": rule("att.k_k", row),
    "attn.k_a": rule("att.k_a", row),
    "attn.r_k": rule("att.r_k"),
    "attn.r_proj.weight": rule("att.receptance.weight"),
    "attn.k_proj.weight": rule("att.key.weight"),
    "attn.v_proj.weight": rule("att.value.weight"),
    "attn.o_proj.weight": rule("att.output.weight"),
    **_both("attn.g_norm", "att.ln_x"),
    "ffn.x_k": rule("ffn.x_k", row),
    "ffn.key.weight": rule("ffn.key.weight"),
    "ffn.value.weight": rule("ffn.value.weight"),
}  # fmt: skip

HF_V7 = Layout(
    "Hugging Face v7",
    lambda t: "embeddings.weight" in t and "blocks.0.att.r_k" in t,
    "blocks.",
    {"embeddings.weight": rule("emb.weight")},
    {},
    keeps=True,
    finish=_folded,
)
HF_V6 = Layout(
    "Hugging Face v6", lambda t: "blocks.0.attention.time_maa_w1" in t, "blocks.", TOP, V6, finish=_tied
)
HF_V5 = Layout(
    "Hugging Face v5", lambda t: "blocks.0.attention.ln_x.weight" in t, "blocks.", TOP, V5, finish=_tied
)
HF_V4 = Layout(
    "Hugging Face v4", lambda t: "blocks.0.attention.time_decay" in t, "blocks.", TOP, V4, finish=_tied
)
FLA_V7 = Layout("fla", lambda t: "layers.0.attn.r_k" in t, "layers.", FLA_TOP, FLA, finish=_tied)
