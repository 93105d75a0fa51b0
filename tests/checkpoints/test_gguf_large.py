"""What a quantized GGUF of 7.2B parameters would take, told from a file that is only its header."""

from pathlib import Path

import numpy as np
import pytest
from gguf_files import gguf

from rwkv_engine.checkpoints import open_checkpoint
from rwkv_engine.checkpoints.names import matrices
from rwkv_engine.running import memory

#: of RWKV-7 7.2B
LARGE = {"layers": 32, "width": 4096, "ffn": 16384, "vocab": 65536}
RANKS = {"w": 128, "a": 128, "v": 96, "g": 480}


def large_file(path: Path, kind: str) -> Path:
    """A GGUF of a 7.2B model's shapes: the header, and a hole instead of the tensors."""
    writer = gguf.GGUFWriter(path, "rwkv7")
    writer.add_wkv_head_size(64)
    number, c, f = gguf.GGMLQuantizationType[kind], LARGE["width"], LARGE["ffn"]
    values, size = gguf.GGML_QUANT_SIZES[number]

    def add(name, shape, quantized=False):
        held = shape[:-1] + (shape[-1] // values * size,) if quantized else shape
        dtype = np.dtype(np.uint8 if quantized else np.float32)
        writer.add_tensor_info(
            name, held, dtype, int(np.prod(held)) * dtype.itemsize, number if quantized else None
        )

    for name in ("token_embd", "output"):
        add(f"{name}.weight", (LARGE["vocab"], c), quantized=True)
    for name in ("token_embd_norm", "output_norm"):
        add(f"{name}.weight", (c,)), add(f"{name}.bias", (c,))
    for layer in range(LARGE["layers"]):
        block = f"blk.{layer}."
        for name in ("attn_norm", "attn_norm_2", "time_mix_ln"):
            add(f"{block}{name}.weight", (c,)), add(f"{block}{name}.bias", (c,))
        for name in ("receptance", "key", "value", "output"):
            add(f"{block}time_mix_{name}.weight", (c, c), quantized=True)
        for part, rank in RANKS.items():
            (
                add(f"{block}time_mix_{part}1.weight", (rank, c)),
                add(f"{block}time_mix_{part}2.weight", (c, rank)),
            )
        for name in ("w0", "a0", "v0", "k_k", "k_a", "r_k"):
            add(f"{block}time_mix_{name}.weight", (c,))
        (
            add(f"{block}time_mix_lerp_fused.weight", (6, 1, 1, c)),
            add(f"{block}channel_mix_lerp_k.weight", (c,)),
        )
        add(f"{block}channel_mix_key.weight", (f, c), quantized=True)
        add(f"{block}channel_mix_value.weight", (c, f), quantized=True)
    writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.write_ti_data_to_file()
    length = sum(info.nbytes + 32 for part in writer.tensors for info in part.values())
    writer.close()
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + length + 32)
    return path


@pytest.mark.parametrize(("kind", "format", "bits"), [("Q4_0", "int4", 4.6), ("Q6_K", "int8", 8.6)])
def test_a_7b_file_is_never_planned_as_float32(tmp_path, kind, format, bits):
    checkpoint = open_checkpoint(large_file(tmp_path / "m.gguf", kind))
    held = sum(np.prod(one.shape) for one in matrices(checkpoint.tensors))
    small = sum(one.nbytes for name, one in checkpoint.tensors.items() if one.kind is None)
    embedding = LARGE["vocab"] * LARGE["width"]
    assert held > 6.5e9
    for cache in (True, False):
        found = memory.estimate(checkpoint, cache=cache)
        most = held * bits / 8 + small + (0 if cache else 2 * embedding)
        assert found.format == format
        assert found.mapped + found.private < most * 1.02 and found.embedding == (
            2 * embedding if cache else 0
        )
