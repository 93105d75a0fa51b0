import json
import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from checkpoint_files import canonical, write_torch

from rwkv_engine.checkpoints import open_checkpoint
from rwkv_engine.errors import CheckpointError, MissingTensor, UnknownLayout

INDEX = "model.safetensors.index.json"


def sharded(folder: Path, index: object = None) -> dict[str, np.ndarray]:
    """A model in two shards with their index, or with the index given."""
    arrays = canonical("7")
    names = sorted(arrays)
    places = {name: f"model-{1 + n % 2}.safetensors" for n, name in enumerate(names)}
    for file in set(places.values()):
        safetensors.numpy.save_file(
            {name: arrays[name] for name in names if places[name] == file}, folder / file
        )
    (folder / INDEX).write_text(json.dumps({"weight_map": places} if index is None else index))
    return arrays


def test_shards_are_read_as_one_model(tmp_path):
    arrays = sharded(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.tensors.keys() == arrays.keys() and checkpoint.files == tmp_path
    assert all(np.array_equal(tensor.float32(), arrays[name]) for name, tensor in checkpoint.tensors.items())


@pytest.mark.parametrize(
    "index, words",
    [
        ([], "weight_map"),
        ({"weight_map": {}}, "weight_map"),
        ({"weight_map": {"a": 3}}, "weight_map"),
        ({"weight_map": {"a": "../model-1.safetensors"}}, "no plain file name"),
        ({"weight_map": {"a": os.sep + "model-1.safetensors"}}, "no plain file name"),
        ({"weight_map": {"a": ".."}}, "no plain file name"),
        ({"weight_map": {"a": "model-9.safetensors"}}, "not in the folder"),
    ],
)
def test_an_index_that_lies_is_refused(tmp_path, index, words):
    sharded(tmp_path, index)
    with pytest.raises(CheckpointError, match=words):
        open_checkpoint(tmp_path)


def test_a_tensor_that_the_index_names_and_no_shard_holds_is_named(tmp_path):
    sharded(tmp_path, {"weight_map": {"blocks.7.ln1.weight": "model-1.safetensors"}})
    with pytest.raises(MissingTensor, match="blocks.7.ln1.weight"):
        open_checkpoint(tmp_path)


def test_a_tensor_in_two_shards_is_refused(tmp_path):
    sharded(tmp_path)
    (tmp_path / "model-2.safetensors").write_bytes((tmp_path / "model-1.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="two shards"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "RWKV-x070.pth", "web.st"])
def test_the_one_model_in_a_folder_is_found_beside_other_files(tmp_path, name):
    write = (
        safetensors.numpy.save_file
        if name.endswith(("st", "safetensors"))
        else lambda arrays, path: write_torch(path, arrays)
    )
    write(canonical("4"), tmp_path / name)
    for other in ("README.md", "tokenizer.json", "training.log"):
        (tmp_path / other).write_text("{}")
    assert open_checkpoint(tmp_path).tensors.keys() == open_checkpoint(tmp_path / name).tensors.keys()


def test_several_models_in_a_folder_are_named(tmp_path):
    for name in ("a.pth", "b.st"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UnknownLayout, match=r"holds 2 models \(a.pth, b.st\)"):
        open_checkpoint(tmp_path)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(UnknownLayout, match="holds no model"):
        open_checkpoint(tmp_path)


def test_a_path_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        open_checkpoint(tmp_path / "absent.pth")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match="no ordinary file"):
        open_checkpoint(tmp_path / "m.pth")


def test_a_path_that_no_file_system_takes_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be looked at|does not exist"):
        open_checkpoint(tmp_path / ("m" * 5000))


@pytest.mark.parametrize(
    "content",
    [b"Once upon a time, in a text file.\n", b"\x08\x07\x12\x07pytorch\x1a", b"\x7fELF", b"{}", b"PK"],
)
def test_a_file_that_is_no_model_is_refused_with_how_it_begins(tmp_path, content):
    (tmp_path / "m.safetensors").write_bytes(content)
    with pytest.raises(UnknownLayout, match="begins with"):
        open_checkpoint(tmp_path / "m.safetensors")


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "m.safetensors").touch()
    with pytest.raises(CheckpointError, match="is empty"):
        open_checkpoint(tmp_path / "m.safetensors")


@pytest.mark.parametrize("index", ["model.safetensors.index.json", "pytorch_model.bin.index.json"])
def test_a_whole_model_wins_over_an_index_that_was_left_beside_it(tmp_path, index):
    arrays = canonical("7")
    safetensors.numpy.save_file(arrays, tmp_path / "model.safetensors")
    (tmp_path / index).write_text(
        json.dumps({"weight_map": dict.fromkeys(arrays, "model-00001-of-00002.bin")})
    )
    assert open_checkpoint(tmp_path).tensors.keys() == arrays.keys()


def test_an_index_with_a_byte_order_mark_is_read(tmp_path):
    arrays = sharded(tmp_path)
    index = tmp_path / INDEX
    index.write_bytes(b"\xef\xbb\xbf" + index.read_bytes())
    assert open_checkpoint(tmp_path).tensors.keys() == arrays.keys()


def test_shards_without_an_index_are_one_model_and_a_missing_one_is_told(tmp_path):
    arrays = canonical("7")
    names = sorted(arrays)
    for number, own in enumerate((names[::2], names[1::2]), 1):
        path = tmp_path / f"model-{number:05}-of-00002.safetensors"
        safetensors.numpy.save_file({name: arrays[name] for name in own}, path)
    assert open_checkpoint(tmp_path).tensors.keys() == arrays.keys()
    with pytest.raises(UnknownLayout, match="is part 2 of 2 of a model; give the folder"):
        open_checkpoint(path)
    path.unlink()
    with pytest.raises(CheckpointError, match="1 of 2 parts of a model; download the others"):
        open_checkpoint(tmp_path)


def test_a_split_gguf_is_told_as_such(tmp_path):
    for number in (1, 2):
        (path := tmp_path / f"x-0000{number}-of-00002.gguf").write_bytes(b"GGUF")
    for what in (tmp_path, path):
        with pytest.raises(UnknownLayout, match="2 .*llama-gguf-split --merge"):
            open_checkpoint(what)


def test_metadata_that_is_null_is_none(tmp_path):
    safetensors.numpy.save_file(canonical("7"), tmp_path / "m.st")
    content = (tmp_path / "m.st").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]) | {"__metadata__": None}
    text = json.dumps(header).encode()
    (tmp_path / "m.st").write_bytes(
        len(text).to_bytes(8, "little") + text + content[8 + int.from_bytes(content[:8], "little") :]
    )
    assert open_checkpoint(tmp_path / "m.st").metadata == {}
