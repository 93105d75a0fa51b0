import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from checkpoint_files import canonical, safetensors_bytes

from rwkv_engine.checkpoints.checkpoint import Contents
from rwkv_engine.checkpoints.safetensors_file import open_safetensors
from rwkv_engine.errors import CheckpointError
from rwkv_engine.numbers.bf16 import float32_to_bf16

ROW = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def opened(folder: Path, content: bytes) -> Contents:
    (folder / "m.safetensors").write_bytes(content)
    return open_safetensors(folder / "m.safetensors")


def test_a_file_of_the_safetensors_package_reads_back_equal(tmp_path):
    tensors = canonical("6")
    safetensors.numpy.save_file(tensors, tmp_path / "m.safetensors", {"note": "text"})
    contents = open_safetensors(tmp_path / "m.safetensors")
    assert contents.metadata == {"note": "text"} and contents.tensors.keys() == tensors.keys()
    assert all(np.array_equal(contents.tensors[name].float32(), tensors[name]) for name in tensors)


def test_bf16_and_f16_widen_to_the_right_float32(tmp_path):
    values = np.array([1.0, -2.5], np.float32)
    data = float32_to_bf16(values).tobytes() + values.astype(np.float16).tobytes()
    rows = {
        kind: {"dtype": kind, "shape": [2], "data_offsets": [4 * n, 4 * n + 4]}
        for n, kind in enumerate(("BF16", "F16"))
    }
    contents = opened(tmp_path, safetensors_bytes(rows, data))
    assert all(np.array_equal(tensor.float32(), values) for tensor in contents.tensors.values())


def test_bits_are_a_view_of_the_file(tmp_path):
    header = json.dumps({"a": ROW}).encode()
    header += b" " * (-(8 + len(header)) % 4)
    bits = opened(tmp_path, safetensors_bytes(header, bytes(8))).tensors["a"].bits()
    assert not bits.flags.owndata and not bits.flags.writeable and bits.flags.aligned


def test_data_off_its_alignment_is_copied_and_equal(tmp_path):
    header = json.dumps({"a": ROW}).encode()
    header += b" " * (-(8 + len(header)) % 4 + 1)
    bits = opened(tmp_path, safetensors_bytes(header, np.array([3, 4], "<f4").tobytes())).tensors["a"].bits()
    assert bits.flags.aligned and bits.tolist() == [3, 4]


BAD_ROWS = {
    "spans": ROW | {"data_offsets": [0, 4]},
    "unknown element type": ROW | {"dtype": "Q4"},
    "wanted one of": ROW | {"dtype": "F64", "shape": [1]},
    "I32": ROW | {"dtype": "I32"},
    "positive whole numbers": ROW | {"shape": [True, 2]},
    "whole numbers": ROW | {"shape": [2.0]},
    "whole numbers, 0": ROW | {"data_offsets": [-8, 0]},
    "two whole": ROW | {"data_offsets": [0, 8, 9]},
    "takes": ROW | {"shape": [1 << 60]},
    "up to 8": ROW | {"shape": [1] * 9},
    "shape": ROW | {"shape": [0], "data_offsets": [0, 0]},
    "has shape": ROW | {"shape": [1 << 62]},
    "exactly": {"dtype": "F32", "shape": [2]},
    "must have": "text",
    "truncated": ROW | {"shape": [4], "data_offsets": [0, 16]},
    "ends at byte": ROW | {"shape": [1 << 58], "data_offsets": [0, 1 << 60]},
}


@pytest.mark.parametrize("words", BAD_ROWS)
def test_a_header_row_that_lies_is_refused_by_name(tmp_path, words):
    with pytest.raises(CheckpointError, match=words) as caught:
        opened(tmp_path, safetensors_bytes({"blocks.0.x": BAD_ROWS[words]}, bytes(8)))
    assert "'blocks.0.x'" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "second, words",
    [([4, 12], "overlaps"), ([12, 20], "leaves a hole after"), ([8, 16], "4 bytes after")],
)
def test_data_that_the_tensors_do_not_tile_is_refused(tmp_path, second, words):
    with pytest.raises(CheckpointError, match=words):
        opened(tmp_path, safetensors_bytes({"a": ROW, "b": ROW | {"data_offsets": second}}, bytes(20)))


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "0 bytes"),
        (b"\x05\0\0\0\0\0\0\0{", "too few"),
        ((1 << 60).to_bytes(8, "little") + b"{}" * 8, "claims"),
        ((30).to_bytes(8, "little") + b"{}        ", "claims 30"),
        (safetensors_bytes('{"a": '), "no valid JSON"),
        (safetensors_bytes("[" * 100_000), "no valid JSON"),
        (safetensors_bytes('{"a": 1' + "0" * 5000 + "}"), "JSON|must have"),
        (safetensors_bytes(b'{"\xff\xfe": 1}'), "no valid JSON"),
        (safetensors_bytes("[]    "), "no JSON object"),
        (safetensors_bytes('{"a": 1, "a": 2}'), "'a' occurs twice"),
        (safetensors_bytes({"__metadata__": {"a": 1}}), "text to text"),
        (safetensors_bytes({"a\nb": 1}), "exactly"),
    ],
)
def test_a_damaged_header_is_one_clear_sentence(tmp_path, content, words):
    with pytest.raises(CheckpointError, match=words) as caught:
        opened(tmp_path, content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [4, 20, 100, 170])
def test_a_truncated_file_is_refused(tmp_path, keep):
    content = safetensors_bytes({"a": ROW, "b": ROW | {"data_offsets": [8, 16]}}, bytes(16))
    with pytest.raises(CheckpointError):
        opened(tmp_path, content[: min(keep, len(content) - 1)])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="absent.safetensors"):
        open_safetensors(tmp_path / "absent.safetensors")


@pytest.mark.parametrize("note", ["x" * 20_000_000, '{"a": "b"}' * 300_000, "é\\" * 2_000_000])
def test_notes_of_many_megabytes_are_read(tmp_path, note):
    row = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors_bytes({"__metadata__": {"config": note, "b": ""}, "a": row}, bytes(4)))
    contents = open_safetensors(path)
    assert contents.metadata == {"config": note, "b": ""} and contents.tensors["a"].shape == (1,)


@pytest.mark.parametrize(
    "header",
    [
        {"__metadata__": {"a": "x" * 3_000_000, "b": 3}, "t": {}},
        {"__metadata__": {str(n): "x" * 300 for n in range(20_000)}, "t": {}},
        {"t": {}, "__metadata__": {"a": "x" * 3_000_000}},
        {"__metadata__": {"a": "x" * 30_000_000}},
        {"__metadata__": {"a": "x" * 3_000_000}},
    ],
)
def test_a_header_that_is_too_large_for_a_model_is_refused(tmp_path, header):
    (tmp_path / "m.safetensors").write_bytes(safetensors_bytes(header))
    with pytest.raises(CheckpointError, match="the header claims"):
        open_safetensors(tmp_path / "m.safetensors")
