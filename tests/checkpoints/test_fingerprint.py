import dataclasses
import os
import re
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from checkpoint_files import canonical, write_torch

from rwkv_engine.checkpoints import open_checkpoint
from rwkv_engine.checkpoints.fingerprint import fingerprint
from rwkv_engine.families.loader import transposed


def of(folder: Path, arrays: dict[str, np.ndarray]) -> str:
    safetensors.numpy.save_file(arrays, folder / "m.st")
    return fingerprint(open_checkpoint(folder / "m.st"))


def test_it_is_64_hexadecimal_digits_and_the_same_each_time(tmp_path):
    first = of(tmp_path, canonical("7"))
    assert re.fullmatch("[0-9a-f]{64}", first) and of(tmp_path, canonical("7")) == first


def test_the_same_model_in_another_container_has_the_same_one(tmp_path):
    arrays = canonical("6")
    assert fingerprint(open_checkpoint(write_torch(tmp_path / "m.pth", arrays))) == of(tmp_path, arrays)


def test_the_same_model_in_another_layout_has_the_same_one(tmp_path):
    arrays = canonical("6")
    renamed = {}
    for name, array in arrays.items():
        array = array.swapaxes(-1, -2) if name.endswith(("_w1", "_w2")) else array
        renamed[name.replace("time_faaaa", "time_first").replace("time_maa", "time_mix")] = (
            np.ascontiguousarray(array)
        )
    assert of(tmp_path, renamed) == of(tmp_path, arrays)


def test_vectors_without_their_axes_of_length_1_and_unused_tensors_change_nothing(tmp_path):
    arrays = canonical("7")
    squeezed = {
        name: array.reshape(-1) if array.shape[:2] == (1, 1) else array for name, array in arrays.items()
    }
    del squeezed["blocks.0.att.v0"], squeezed["blocks.0.att.v1"], squeezed["blocks.0.att.v2"]
    assert of(tmp_path, squeezed) == of(tmp_path, arrays)


def test_one_other_number_name_shape_or_precision_changes_it(tmp_path):
    arrays = canonical("7")
    key = "blocks.2.att.key.weight"
    number = arrays[key] * 1
    number[0, 5] += np.float32(1e-6)
    without = {name: array for name, array in arrays.items() if name != key}
    others = [
        arrays | {key: number},
        without | {"blocks.2.att.keys.weight": arrays[key]},
        arrays | {key: np.concatenate([arrays[key]] * 2)},
        arrays | {key: arrays[key].astype(np.float16)},
        arrays | {key: arrays[key].astype(np.float16).astype(np.float32)},
        canonical("7", seed=2),
        without,
    ]
    assert len({of(tmp_path, other) for other in [arrays, *others]}) == len(others) + 1


def test_a_tensor_without_axes_has_its_part_in_it(tmp_path):
    scalars = [canonical("7") | {"blocks.0.att.scale": np.full((), number, np.float32)} for number in (1, 2)]
    assert len({of(tmp_path, arrays) for arrays in scalars}) == 2


@pytest.fixture(scope="module")
def large():
    """A model with one matrix of which not all is read."""
    key = np.random.default_rng(0).standard_normal((512, 1024)).astype(np.float32)
    return canonical("7") | {"blocks.1.ffn.key.weight": key}


@pytest.mark.parametrize(
    "part", [slice(0, 1), slice(64, 256), slice(300, 500), slice(511, 512), slice(None, None, 2)]
)
def test_a_change_behind_the_first_numbers_changes_it(tmp_path, large, part):
    changed = large["blocks.1.ffn.key.weight"].copy()
    changed[part] *= 2
    assert of(tmp_path, large | {"blocks.1.ffn.key.weight": changed}) != of(tmp_path, large)


def test_a_large_model_has_the_same_one_in_place_turned_and_where_files_are_not_read_at_a_place(
    tmp_path, large, monkeypatch
):
    name = "blocks.1.ffn.key.weight"
    first = of(tmp_path, large)
    assert fingerprint(open_checkpoint(write_torch(tmp_path / "m.pth", large))) == first
    turned = large | {name: np.ascontiguousarray(large[name].T)}
    checkpoint = open_checkpoint(write_torch(tmp_path / "m.pth", turned))
    tensors = {**checkpoint.tensors, name: transposed(checkpoint.tensors[name])}
    assert fingerprint(dataclasses.replace(checkpoint, tensors=tensors)) == first
    monkeypatch.delattr(os, "pread")
    assert of(tmp_path, large) == first


def test_little_of_a_large_model_is_read(tmp_path, large, monkeypatch):
    read = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda *about: read.append(about[1]) or pread(*about))
    of(tmp_path, large)
    assert 0 < sum(read) < 0.1 * sum(array.nbytes for array in large.values())
