"""GGUF files for tests: llama.cpp's names for tensors under BlinkDL's, and the file itself."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from checkpoint_files import L, N

gguf = pytest.importorskip("gguf", reason="the package gguf, which writes these files, is not installed")

Arrays = dict[str, np.ndarray]
RESCALE = 2

TOP = {
    "emb.": "token_embd.",
    "head.": "output.",
    "ln_out.": "output_norm.",
    "blocks.0.ln0.": "token_embd_norm.",
}
NORMS = {
    "ln1.": "attn_norm.",
    "ln2.": "attn_norm_2.",
    "att.ln_x.": "time_mix_ln.",
    "att.": "time_mix_",
    "ffn.": "channel_mix_",
}


def llama_names(arrays: Arrays, own: Callable[[str], str]) -> Arrays:
    """The part of llama.cpp's renaming that v6 and v7 share; `own` names a tensor inside a block."""
    result = {}
    for name, array in arrays.items():
        for ours, theirs in TOP.items():
            name = name.replace(ours, theirs) if name.startswith(ours) else name
        if name.startswith("blocks."):
            _, block, tail = name.split(".", 2)
            tail = own(tail)
            prefix = next(ours for ours in NORMS if tail.startswith(ours))
            name = f"blk.{block}.{NORMS[prefix]}{tail[len(prefix) :]}"
        result[name if name.endswith(("weight", "bias")) else name + ".weight"] = array
    return result


def v6_names(arrays: Arrays) -> Arrays:
    words = {
        "time_maa_w": "w",
        "time_decay": "decay",
        "time_faaaa": "first",
        "time_maa_x": "lerp_x",
        "time_maa_": "lerp_",
    }

    def own(tail: str) -> str:
        for ours, theirs in words.items():
            if ours != "time_maa_w" or tail[-1] in "12":
                tail = tail.replace(ours, theirs)
        return tail

    result = llama_names(arrays, own)
    for name, array in list(result.items()):
        block = int(name.split(".")[1]) if name.startswith("blk.") else 0
        if name.endswith(("w1.weight", "w2.weight")):
            result[name] = array.swapaxes(-1, -2)
        elif name.endswith(("time_mix_output.weight", "channel_mix_value.weight")):
            result[name] = array / np.float32(2 ** (block // RESCALE))
        elif array.shape[:2] == (1, 1):
            result[name] = array.reshape(-1)
    return result


def v7_names(arrays: Arrays) -> Arrays:
    result = llama_names(arrays, lambda tail: tail.replace("ffn.x_k", "ffn.lerp_k"))
    for name, array in list(result.items()):
        if name.endswith(tuple(f"mix_{part}{n}.weight" for part in "wavg" for n in "12")):
            result[name] = array.T
        elif array.shape[:2] == (1, 1) or name.endswith("r_k.weight"):
            result[name] = array.reshape(-1)
    return result


def fused(arrays: Arrays, prefix: str, parts: str, layers: int = L) -> Arrays:
    """The token-shift weights of each layer in one tensor [K, 1, 1, C]."""
    result = dict(arrays)
    for block in range(layers):
        rows = [result.pop(f"blk.{block}.time_mix_{prefix}{part}.weight").reshape(1, 1, -1) for part in parts]
        result[f"blk.{block}.time_mix_lerp_fused.weight"] = np.stack(rows)
    return result


def write(
    path: Path,
    architecture: str,
    arrays: Arrays,
    quantized: dict[str, str] | None = None,
    head_size: int = N,
) -> Path:
    """A GGUF of F32 tensors; those in `quantized` in the type named there. An array of bytes is written as it
    is.
    """
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_wkv_head_size(head_size)
    writer.add_rescale_every_n_layers(RESCALE)
    writer.add_token_list(["<s>", "a", "bé"])
    writer.add_token_types([3, 1, 1])
    for name, array in arrays.items():
        kind = gguf.GGMLQuantizationType[(quantized or {}).get(name, "F32")]
        array = np.ascontiguousarray(array)
        ready = kind.name == "F32" or array.dtype == np.uint8
        writer.add_tensor(name, array if ready else gguf.quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
