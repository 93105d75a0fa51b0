import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from checkpoint_files import (
    canonical,
    dict_op,
    global_op,
    int_op,
    pickle_bytes,
    storage_op,
    tensor_op,
    text_op,
    tuple_op,
    write_torch,
    zip_torch,
)

from rwkv_engine.checkpoints import open_checkpoint
from rwkv_engine.checkpoints.checkpoint import Contents
from rwkv_engine.checkpoints.torch_zip import open_torch_zip
from rwkv_engine.errors import CheckpointError, UnknownLayout
from rwkv_engine.numbers.bf16 import float32_to_bf16

SIX = np.arange(6, dtype="<f4")
STORAGE = storage_op("FloatStorage", "0", 6)


def opened(folder: Path, content: bytes, storages: dict[str, bytes] | None = None) -> Contents:
    return open_torch_zip(
        zip_torch(folder / "m.pth", pickle_bytes(content), storages or {"0": SIX.tobytes()})
    )


@pytest.mark.parametrize("wrapper", ["", "model", "state_dict"])
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_every_tensor_reads_back_equal(tmp_path, dtype, wrapper):
    convert = {"F32": np.asarray, "F16": lambda x: x.astype("<f2"), "BF16": float32_to_bf16}[dtype]
    arrays = {name: convert(array) for name, array in canonical("7").items()}
    checkpoint = open_checkpoint(write_torch(tmp_path / "m.pth", arrays, wrapper))
    assert (checkpoint.container, checkpoint.layout) == ("torch zip", "BlinkDL")
    assert checkpoint.tensors.keys() == arrays.keys()
    for name, tensor in checkpoint.tensors.items():
        assert tensor.dtype == dtype and np.array_equal(tensor.bits(), arrays[name]), name


def test_strides_and_offset_are_honoured_in_place(tmp_path):
    (tensor,) = opened(tmp_path, dict_op({"a": tensor_op(STORAGE, 1, (2, 2), (1, 3))})).tensors.values()
    assert tensor.bits().tolist() == [[1, 4], [2, 5]] and not tensor.bits().flags.owndata


def test_a_parameter_and_an_ordered_dict_with_attributes_are_read(tmp_path):
    parameter = (
        global_op("torch._utils", "_rebuild_parameter")
        + tuple_op(tensor_op(STORAGE, 0, (6,), (1,)), b"\x88", b"N")
        + b"R"
    )
    content = global_op("collections", "OrderedDict") + b")R" + b"(" + text_op("a") + parameter + b"u"
    content += dict_op({"_metadata": b"}"}) + b"b"
    assert opened(tmp_path, content).tensors["a"].bits().tolist() == SIX.tolist()


@pytest.mark.parametrize(
    "offset, shape, strides",
    [
        (0, (7,), (1,)),
        (1, (2, 3), (3, 1)),
        (6, (), ()),
        (0, (2, 2), (1, 5)),
        (0, (1 << 60,), (0,)),
        (1 << 61, (1,), (1,)),
        (0, (0,), (1,)),
    ],
)
def test_a_tensor_outside_its_storage_is_refused(tmp_path, offset, shape, strides):
    with pytest.raises(CheckpointError, match="'a' of shape"):
        opened(tmp_path, dict_op({"a": tensor_op(STORAGE, offset, shape, strides)}))


@pytest.mark.parametrize(
    "offset, shape, strides", [(-1, (2,), (1,)), (5, (2,), (-1,)), (0, (2, 3), (1,)), (0, (1,) * 9, (1,) * 9)]
)
def test_a_tensor_with_impossible_numbers_is_refused(tmp_path, offset, shape, strides):
    with pytest.raises(CheckpointError, match="no proper"):
        opened(tmp_path, dict_op({"a": tensor_op(STORAGE, offset, shape, strides)}))


def test_an_element_type_that_is_no_weight_is_refused_by_name(tmp_path):
    with pytest.raises(CheckpointError, match="'a' has elements of type 'F64'"):
        opened(tmp_path, dict_op({"a": tensor_op(storage_op("DoubleStorage", "0", 3), 0, (3,), (1,))}))


@pytest.mark.parametrize(
    "key, count, words", [("9", 6, "no data"), ("0", 7, "24 bytes, wanted 28"), ("../0", 6, "no data")]
)
def test_a_storage_that_lies_is_refused(tmp_path, key, count, words):
    with pytest.raises(CheckpointError, match=words):
        opened(tmp_path, dict_op({"a": tensor_op(storage_op("FloatStorage", key, count), 0, (6,), (1,))}))


def test_compressed_data_is_refused(tmp_path):
    content = pickle_bytes(dict_op({"a": tensor_op(storage_op("FloatStorage", "0", 999), 0, (999,), (1,))}))
    with pytest.raises(CheckpointError, match="compressed"):
        open_torch_zip(
            zip_torch(tmp_path / "m.pth", content, {"0": bytes(3996)}, method=zipfile.ZIP_DEFLATED)
        )


def test_a_compressed_pickle_that_swells_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="over 4194304 bytes"):
        open_torch_zip(zip_torch(tmp_path / "m.pth", bytes(1 << 24), {}, method=zipfile.ZIP_DEFLATED))


def test_a_pickle_of_too_many_instructions_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no end within"):
        opened(tmp_path, b"}" * 1_000_000)


def test_a_pickle_of_references_that_grow_exponentially_is_refused_at_once(tmp_path):
    levels = b"".join(b"h" + bytes([n]) + b"h" + bytes([n]) + b"\x86q" + bytes([n + 1]) for n in range(60))
    with pytest.raises(CheckpointError, match="key of type tuple"):
        opened(tmp_path, b")q\x00" + levels + b"}h\x3cNs")


@pytest.mark.parametrize("keep", [10, 100, 400, -30, -1])
def test_a_truncated_archive_is_refused(tmp_path, keep):
    content = write_torch(tmp_path / "m.pth", {"a": SIX}).read_bytes()
    (tmp_path / "cut.pth").write_bytes(content[:keep])
    with pytest.raises(CheckpointError):
        open_torch_zip(tmp_path / "cut.pth")


def test_an_archive_that_torch_did_not_write_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.writestr("letter.txt", "Dear")
    with pytest.raises(UnknownLayout, match="no checkpoint of torch"):
        open_checkpoint(tmp_path / "m.zip")


@pytest.mark.parametrize("content", [b"]", int_op(3), dict_op({"a": int_op(3)}), dict_op({"model": b"}"})])
def test_a_pickle_without_tensors_is_refused(tmp_path, content):
    with pytest.raises(UnknownLayout, match="no dict of tensors"):
        opened(tmp_path, content)


def test_a_bare_pickle_is_refused_with_the_way_to_convert_it(tmp_path):
    (tmp_path / "old.pth").write_bytes(pickle.dumps({"a": 1}, protocol=2))
    with pytest.raises(UnknownLayout, match=r"torch\.save\(torch\.load"):
        open_checkpoint(tmp_path / "old.pth")


def test_what_torch_saves_is_what_is_read(tmp_path):
    torch = pytest.importorskip(
        "torch", reason="torch is not installed; the other tests write its format by hand"
    )
    wide = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    model = {
        "emb.weight": wide.bfloat16(),
        "blocks.0.att.key.weight": wide.T,
        "blocks.0.att.value.weight": wide[1:3, ::2].half(),
        "head.weight": torch.nn.Parameter(wide[2:]),
    }
    for protocol in (2, 4):
        torch.save(model, tmp_path / "m.pth", pickle_protocol=protocol)
        checkpoint = open_checkpoint(tmp_path / "m.pth")
        for name, tensor in model.items():
            assert np.array_equal(checkpoint.tensors[name].float32(), tensor.detach().float().numpy()), name
