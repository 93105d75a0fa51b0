"""BlinkDL's own names, and those of web-rwkv: nearly the same, but its low-rank matrices are transposed.

Sources: RWKV-LM@524481d, the models' own names; github.com/cryscan/web-rwkv, convert_safetensors.py, which
renames `time_faaaa` to `time_first` and `time_maa` to `time_mix`, transposes the low-rank matrices and
time_state, and repeats v5.1's decay to [H, N] (v5.2's shape, same formula).
"""

from pathlib import Path

from rwkv_engine.checkpoints.checkpoint import Contents
from rwkv_engine.checkpoints.layout import Layout, Tensors, rule, turned
from rwkv_engine.checkpoints.names import WIDTH_AXIS, is_time_state
from rwkv_engine.numbers.tensor import Tensor


def _low_rank(tensors: Tensors) -> dict[str, bool]:
    """Low-rank matrices whose shape reveals their orientation -> whether it is that of web-rwkv."""
    width = (tensors["emb.weight"].shape or (0,))[-1]
    told = {}
    for name, tensor in tensors.items():
        axis = WIDTH_AXIS.get(name.rpartition(".att.")[2])
        if axis is not None and len(tensor.shape) >= 2:
            other = len(tensor.shape) - 1 if axis == len(tensor.shape) - 2 else len(tensor.shape) - 2
            if axis < len(tensor.shape) and (tensor.shape[axis] == width) != (tensor.shape[other] == width):
                told[name] = tensor.shape[other] == width
    return told


def _is_blinkdl(tensors: Tensors) -> bool:
    return "emb.weight" in tensors and any(".att." in name for name in tensors)


def _is_turned_v7(tensors: Tensors) -> bool:
    return _is_blinkdl(tensors) and "blocks.0.att.r_k" in tensors and any(_low_rank(tensors).values())


def _oriented(tensors: dict[str, Tensor], contents: Contents, folder: Path) -> dict[str, Tensor]:
    """Low-rank matrices and time_state in BlinkDL's orientation; square ones follow the others."""
    told = _low_rank(tensors)
    common = any(told.values())
    result = dict(tensors)
    for name, tensor in tensors.items():
        tail = name.rpartition(".att.")[2]
        if is_time_state(name) or (tail in WIDTH_AXIS and told.get(name, common)):
            result[name] = turned(tensor)
    return result


BLINKDL = Layout("BlinkDL", _is_blinkdl, "blocks.", {}, {}, keeps=True)

WEB_V5 = Layout(
    "web-rwkv",
    lambda t: _is_blinkdl(t) and "blocks.0.att.time_first" in t and "blocks.0.att.gate.weight" in t,
    "blocks.",
    {},
    {"att.time_first": rule("att.time_faaaa")},
    keeps=True,
    finish=_oriented,
)

WEB_V6 = Layout(
    "web-rwkv",
    lambda t: _is_blinkdl(t) and "blocks.0.att.time_mix_w1" in t,
    "blocks.",
    {},
    {
        "att.time_first": rule("att.time_faaaa"),
        "ffn.time_mix_k": rule("ffn.time_maa_k"),
        "ffn.time_mix_r": rule("ffn.time_maa_r"),
        **{
            f"att.time_mix_{part}": rule(f"att.time_maa_{part}")
            for part in ("x", "w", "k", "v", "r", "g", "w1", "w2")
        },
    },
    keeps=True,
    finish=_oriented,
)

WEB_V7 = Layout("web-rwkv", _is_turned_v7, "blocks.", {}, {}, keeps=True, finish=_oriented)
