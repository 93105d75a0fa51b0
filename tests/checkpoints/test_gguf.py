import struct
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from checkpoint_files import canonical
from gguf_files import Arrays, fused, gguf, v6_names, v7_names, write

from rwkv_engine.checkpoints import Checkpoint, open_checkpoint
from rwkv_engine.checkpoints.fingerprint import fingerprint
from rwkv_engine.checkpoints.gguf_file import open_gguf
from rwkv_engine.errors import CheckpointError, MissingExtra, UnknownLayout


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
