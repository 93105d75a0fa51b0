import argparse
import pickle
import time
import tracemalloc
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


def long_op(module, name, *arguments):
    """A call of a function by name."""
    return global_op(module, name) + tuple_op(*arguments) + b"R"


def stray_entries():
    """What trainers save beside the tensors, by name."""
    dtype = (
        long_op("numpy", "dtype", text_op("f8"), b"\x89", b"\x88") + tuple_op(int_op(3), text_op("<")) + b"b"
    )
    raw = long_op("_codecs", "encode", text_op("\0" * 8), text_op("latin1"))
    array = long_op(
        "numpy.core.multiarray", "_reconstruct", global_op("numpy", "ndarray"), tuple_op(int_op(0)), raw
    )
    return {
        "rng_state": tensor_op(storage_op("ByteStorage", "0", 24), 0, (24,), (1,)),
        "loss": tensor_op(STORAGE, 0, (), ()),
        "best": long_op("numpy._core.multiarray", "scalar", dtype, raw),
        "curve": array + tuple_op(int_op(1), dtype) + b"b",
        "shape": long_op("torch", "Size", tuple_op(int_op(2))),
        "device": long_op("torch", "device", text_op("cuda"), int_op(0)),
        "dtype": global_op("torch", "bfloat16"),
        "args": global_op("argparse", "Namespace") + b")\x81" + dict_op({"lr": int_op(1)}) + b"b",
        "lrs": long_op("collections", "Counter", dict_op({})),
        "folder": long_op("pathlib", "PosixPath", text_op("/tmp")),
        "some": b"\x8f(" + text_op("a") + b"\x90",
        "other": dict_op({}),
        "optimizer": dict_op(
            {"state": b"}(" + int_op(0) + dict_op({"step": tensor_op(STORAGE, 0, (), ())}) + b"u"}
        ),
    }


@pytest.mark.parametrize("place", ["", "model", "state_dict"])
def test_what_trainers_save_beside_the_model_is_left_out(tmp_path, place):
    names = ("emb.weight", "blocks.0.att.key.weight")
    model = {name: tensor_op(STORAGE, 0, (2, 3), (3, 1)) for name in names}
    entries = stray_entries() | ({place: dict_op(model)} if place else model)
    assert opened(tmp_path, dict_op(entries)).tensors.keys() == set(names)


@pytest.mark.parametrize("name", stray_entries())
def test_no_entry_beside_the_model_is_taken_for_it(tmp_path, name):
    model = {"emb.weight": tensor_op(STORAGE, 0, (2, 3), (3, 1))}
    for entries in (
        {name: stray_entries()[name], "model": dict_op(model)},
        {**model, name: stray_entries()[name]},
    ):
        assert opened(tmp_path, dict_op(entries)).tensors.keys() == {"emb.weight"}


@pytest.mark.parametrize(
    "content",
    [
        long_op("os", "system", text_op("true")),
        long_op("builtins", "eval", text_op("1")),
        long_op("numpy", "load", text_op("x")),
        long_op("torch", "load", text_op("x")),
        long_op("torch", "FloatStorage", int_op(9)),
        long_op("torch", "float32"),
    ],
)
def test_nothing_else_is_called_not_even_beside_a_model(tmp_path, content):
    model = {"emb.weight": tensor_op(STORAGE, 0, (2, 3), (3, 1))}
    with pytest.raises(CheckpointError, match="nothing of it was run"):
        opened(tmp_path, dict_op({**model, "x": content}))


def test_a_dict_that_is_copied_again_and_again_is_refused_at_once(tmp_path):
    pairs = b"](" + b"".join(tuple_op(int_op(n), b"N") for n in range(30_000)) + b"e\x85q\x00"
    call = global_op("collections", "OrderedDict") + b"q\x01"
    began = time.process_time()
    with pytest.raises(CheckpointError, match="too many"):
        opened(tmp_path, pairs + call + b"h\x01h\x00R" * 60_000)
    assert time.process_time() - began < 3


def test_two_models_in_one_file_are_refused(tmp_path):
    model = dict_op({"emb.weight": tensor_op(STORAGE, 0, (2, 3), (3, 1))})
    with pytest.raises(UnknownLayout):
        opened(tmp_path, dict_op({"model": model, "state_dict": model}))


def many_members(path, count):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle_bytes(dict_op({"a": tensor_op(STORAGE, 0, (6,), (1,))})))
        archive.writestr("archive/data/0", SIX.tobytes())
        for number in range(count):
            info = zipfile.ZipInfo(f"{number}")
            info.header_offset = info.CRC = 0
            archive.filelist.append(info)
    return path


def test_a_zip_directory_of_hundreds_of_thousands_is_refused_at_once(tmp_path):
    path = many_members(tmp_path / "m.pth", 300_000)
    began = time.process_time()
    tracemalloc.start()
    with pytest.raises(CheckpointError, match="directory has"):
        open_torch_zip(path)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20 and time.process_time() - began < 1
    tracemalloc.stop()


def test_a_zip_directory_of_ten_thousand_is_read(tmp_path):
    assert open_torch_zip(many_members(tmp_path / "m.pth", 10_000)).tensors.keys() == {"a"}


def test_what_torch_saves_beside_a_model_is_left_out(tmp_path):
    torch = pytest.importorskip(
        "torch", reason="torch is not installed; the other tests write its format by hand"
    )
    model = {"emb.weight": torch.zeros(3, 2), "blocks.0.ln1.weight": torch.ones(2)}
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([parameter])
    parameter.sum().backward()
    optimizer.step()
    beside = {
        "rng_state": torch.get_rng_state(),
        "numpy": np.random.default_rng(0).standard_normal(3),
        "loss": np.float64(3),
        "size": torch.Size((2, 3)),
        "device": torch.device("cpu"),
        "dtype": torch.bfloat16,
        "optimizer": optimizer.state_dict(),
        "args": argparse.Namespace(lr=1e-3, folder=Path("/tmp")),
        "set": {1, 2},
    }
    for protocol in (2, 4):
        for content in ({**model, **beside}, {"model": model, **beside}):
            torch.save(content, tmp_path / "m.pth", pickle_protocol=protocol)
            assert open_torch_zip(tmp_path / "m.pth").tensors.keys() == model.keys()
