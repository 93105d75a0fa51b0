import struct
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from checkpoint_files import L, N, canonical

from rwkv_engine.checkpoints import Checkpoint, open_checkpoint
from rwkv_engine.checkpoints.fingerprint import fingerprint
from rwkv_engine.checkpoints.gguf_file import open_gguf
from rwkv_engine.errors import CheckpointError, MissingExtra, UnknownLayout

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


def fused(arrays: Arrays, prefix: str, parts: str) -> Arrays:
    """The token-shift weights of each layer in one tensor [K, 1, 1, C]."""
    result = dict(arrays)
    for block in range(L):
        rows = [result.pop(f"blk.{block}.time_mix_{prefix}{part}.weight").reshape(1, 1, -1) for part in parts]
        result[f"blk.{block}.time_mix_lerp_fused.weight"] = np.stack(rows)
    return result


def write(path: Path, architecture: str, arrays: Arrays, quantized: dict[str, str] | None = None) -> Path:
    """A GGUF of F32 tensors; those in `quantized` in the type named there."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_wkv_head_size(N)
    writer.add_rescale_every_n_layers(RESCALE)
    writer.add_token_list(["<s>", "a", "bé"])
    writer.add_token_types([3, 1, 1])
    for name, array in arrays.items():
        kind = gguf.GGMLQuantizationType[(quantized or {}).get(name, "F32")]
        array = np.ascontiguousarray(array)
        writer.add_tensor(
            name, gguf.quants.quantize(array, kind) if kind.name != "F32" else array, raw_dtype=kind
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def v6_file(folder: Path) -> Path:
    return write(folder / "m.gguf", "rwkv6", fused(v6_names(canonical("6")), "lerp_", "wkvrg"))


def v7_file(folder: Path) -> Path:
    return write(folder / "m.gguf", "rwkv7", fused(v7_names(canonical("7")), "x_", "rwkvag"))


def require_equal(checkpoint: Checkpoint, arrays: Arrays) -> None:
    assert (checkpoint.container, checkpoint.layout) == (
        "gguf",
        "GGUF",
    ) and checkpoint.tensors.keys() == arrays.keys()
    for name, array in arrays.items():
        tensor = checkpoint.tensors[name]
        assert tensor.shape == tensor.bits().shape == array.shape and np.array_equal(
            tensor.float32(), array
        ), name


def test_rwkv6_comes_back_canonical_and_without_its_rescaling(tmp_path):
    require_equal(open_checkpoint(v6_file(tmp_path)), canonical("6"))


def test_rwkv6_with_separate_token_shift_comes_back_canonical(tmp_path):
    require_equal(
        open_checkpoint(write(tmp_path / "m.gguf", "rwkv6", v6_names(canonical("6")))), canonical("6")
    )


def test_rwkv7_comes_back_canonical(tmp_path):
    require_equal(open_checkpoint(v7_file(tmp_path)), canonical("7"))


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q5_1"])
@pytest.mark.parametrize("block, factor", [(0, 1), (2, 2)])
def test_every_element_type_is_decoded_as_gguf_does_and_scaled_back(tmp_path, kind, block, factor):
    name = f"blk.{block}.channel_mix_value.weight"
    values = np.random.default_rng(1).standard_normal((4, 64), np.float32)
    path = write(tmp_path / "m.gguf", "rwkv6", v6_names(canonical("6")) | {name: values}, {name: kind})
    number = gguf.GGMLQuantizationType[kind]
    wanted = gguf.quants.dequantize(gguf.quants.quantize(values, number), number) * np.float32(factor)
    tensor = open_checkpoint(path).tensors[f"blocks.{block}.ffn.value.weight"]
    assert tensor.dtype == (kind if kind in ("F16", "BF16") else "F32")
    assert np.array_equal(tensor.float32(), wanted) and np.allclose(wanted, values * factor, atol=0.6)


def test_the_fingerprint_decodes_little_of_a_quantized_tensor(tmp_path, monkeypatch):
    values = np.zeros((4096, 320), np.float32)
    arrays = fused(v7_names(canonical("7")), "x_", "rwkvag") | {"output.weight": values}
    path = write(tmp_path / "m.gguf", "rwkv7", arrays, {"output.weight": "Q8_0"})
    sizes: list[int] = []
    decode = gguf.quants.dequantize
    monkeypatch.setattr(
        gguf.quants, "dequantize", lambda data, kind: sizes.append(len(data)) or decode(data, kind)
    )
    fingerprint(open_checkpoint(path))
    assert 1 < max(sizes) <= 40  # blocks of 32 values, of 40,960


def test_quantized_tensors_without_the_package_ask_for_the_extra(tmp_path, monkeypatch):
    arrays = v7_names(canonical("7")) | {"output.weight": np.zeros((2, 32), np.float32)}
    path = write(tmp_path / "m.gguf", "rwkv7", arrays, {"output.weight": "Q8_0"})
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtra, match="install .*gguf"):
        open_gguf(path)


def test_another_architecture_is_refused_by_name(tmp_path):
    with pytest.raises(UnknownLayout, match="architecture 'arwkv7'"):
        open_checkpoint(
            write(tmp_path / "m.gguf", "arwkv7", {"token_embd.weight": np.zeros((2, 2), np.float32)})
        )


@pytest.mark.parametrize("keep", [3, 10, 30, 300, 2000, -1])
def test_a_truncated_file_is_refused(tmp_path, keep):
    content = v7_file(tmp_path).read_bytes()
    (tmp_path / "cut.gguf").write_bytes(content[:keep])
    with pytest.raises(CheckpointError):
        open_gguf(tmp_path / "cut.gguf")


def note(key: bytes, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(key)) + key + struct.pack("<I", kind) + value


@pytest.mark.parametrize(
    "content, words",
    [
        (struct.pack("<4sIQQ", b"GGUF", 1, 0, 0), "version 1"),
        (struct.pack(">4sIQQ", b"GGUF", 3, 0, 0), "version"),
        (struct.pack("<4sIQQ", b"GGUF", 3, 1 << 60, 0), "entries"),
        (struct.pack("<4sIQQ", b"GGUF", 3, 0, 5), "ends early"),
        (
            struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + note(b"a", 9, struct.pack("<IQ", 4, 1 << 60)),
            "ends early",
        ),
        (
            struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + note(b"a", 9, struct.pack("<IQ", 8, 1 << 60)),
            "over 524288 texts",
        ),
        (
            struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + note(b"a", 9, struct.pack("<IQ", 9, 1)),
            "array of kind 9",
        ),
        (struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + note(b"a", 99, b""), "kind 99"),
        (struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + note(b"\xff", 0, b"\0"), "decode"),
        (
            struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + note(b"general.alignment", 4, struct.pack("<I", 0)),
            "alignment",
        ),
        (struct.pack("<4sIQQQ1sIQIQ", b"GGUF", 3, 1, 0, 1, b"a", 1, 1 << 60, 0, 0), "impossible axis"),
        (struct.pack("<4sIQQQ1sI", b"GGUF", 3, 1, 0, 1, b"a", 99), "99 axes"),
        (struct.pack("<4sIQQQ1sIIQ", b"GGUF", 3, 1, 0, 1, b"a", 0, 8, 0), "0 axes"),
    ],
)
def test_a_header_that_lies_is_one_clear_sentence(tmp_path, content, words):
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(CheckpointError, match=words) as caught:
        open_gguf(tmp_path / "m.gguf")
    assert "\n" not in str(caught.value)


def sparse(path, header, size):
    """A file of `size` bytes, of which only the header takes room on the disk."""
    with open(path, "wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, 1, 5000) + header)
        file.truncate(size)
    return path


def key_of_note(key, kind):
    return struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", kind)


@pytest.mark.parametrize(
    "header",
    [
        key_of_note("tokens", 9) + struct.pack("<IQ", 8, 1 << 30),
        key_of_note("tokens", 9) + struct.pack("<IQ", 4, 1 << 30),
        b"".join(key_of_note(f"{n}", 9) + struct.pack("<IQ", 8, 1 << 18) + bytes(8 << 18) for n in range(3)),
    ],
    ids=["empty texts", "numbers", "many arrays"],
)
def test_counts_that_a_sparse_file_makes_true_are_bounded(tmp_path, header):
    path = sparse(tmp_path / "m.gguf", header, 16 << 30)
    began = time.process_time()
    with pytest.raises(CheckpointError, match="header is damaged .over"):
        open_checkpoint(path)
    assert time.process_time() - began < 5


def test_thousands_of_long_notes_take_little_memory(tmp_path):
    path = tmp_path / "m.gguf"
    with open(path, "wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, 1, 3000))
        for number in range(3000):
            file.write(key_of_note(f"{number}", 8) + struct.pack("<Q", 1 << 20))
            file.seek(1 << 20, 1)
        file.truncate(file.tell() + 10)
    tracemalloc.start()
    with pytest.raises(CheckpointError, match="header is damaged .over"):
        open_checkpoint(path)
    assert tracemalloc.get_traced_memory()[1] < 100 << 20
    tracemalloc.stop()
