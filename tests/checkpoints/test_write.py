from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from checkpoint_files import canonical

from rwkv_engine.checkpoints.mapping import map_file
from rwkv_engine.checkpoints.safetensors_file import open_safetensors
from rwkv_engine.checkpoints.write import write_safetensors
from rwkv_engine.errors import CheckpointError
from rwkv_engine.numbers.container import read_header, stored
from rwkv_engine.numbers.tensor import Tensor


def test_what_is_written_reads_back_equal_here_and_in_the_safetensors_package(tmp_path):
    arrays = canonical("6")
    write_safetensors(
        tmp_path / "m.st",
        {name: stored(name, "F32", array) for name, array in arrays.items()},
        {"note": "text"},
    )
    ours, theirs = open_safetensors(tmp_path / "m.st"), safetensors.numpy.load_file(tmp_path / "m.st")
    assert ours.metadata == {"note": "text"} and ours.tensors.keys() == theirs.keys() == arrays.keys()
    for name, array in arrays.items():
        assert np.array_equal(ours.tensors[name].float32(), array) and np.array_equal(theirs[name], array)


def test_every_element_type_is_written_with_its_bits(tmp_path):
    arrays = {
        "BF16": np.arange(3, dtype="<u2"),
        "I8": np.arange(64, dtype="i1"),
        "U8": np.arange(5, dtype="u1"),
        "I64": np.arange(2),
    }
    write_safetensors(tmp_path / "m.st", {kind: stored(kind, kind, array) for kind, array in arrays.items()})
    data = map_file(tmp_path / "m.st")
    entries, _ = read_header(tmp_path / "m.st", data)
    for kind, entry in entries.items():
        assert entry.dtype == kind and data[entry.start : entry.end].tobytes() == arrays[kind].tobytes()


def test_long_tensors_begin_at_multiples_of_the_alignment(tmp_path):
    lengths = {"a": 3, "b": 64, "c": 70, "d": 4096, "e": 1}
    write_safetensors(
        tmp_path / "m.st", {name: stored(name, "U8", np.zeros(n, "u1")) for name, n in lengths.items()}
    )
    entries, _ = read_header(tmp_path / "m.st", map_file(tmp_path / "m.st"))
    assert entries["b"].start % 64 == entries["d"].start % 64 == 0


def test_a_strided_view_is_written_in_c_order(tmp_path):
    array = np.arange(6, dtype="<f4").reshape(2, 3).T
    write_safetensors(tmp_path / "m.st", {"a": stored("a", "F32", array)})
    assert np.array_equal(open_safetensors(tmp_path / "m.st").tensors["a"].float32(), array)


def test_a_failure_half_way_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    def fail() -> np.ndarray:
        raise CheckpointError("the source is damaged")

    path = tmp_path / "m.st"
    path.write_bytes(b"old")
    with pytest.raises(CheckpointError, match="source is damaged"):
        write_safetensors(
            path, {"a": stored("a", "F32", np.zeros(16, "<f4")), "b": Tensor("b", (2,), "F32", fail)}
        )
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_one_clear_sentence(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be written"):
        write_safetensors(tmp_path / "absent" / "m.st", {})


def test_tensors_are_read_one_at_a_time_when_their_turn_comes(tmp_path):
    alive: list[int] = []

    def bits(number: int) -> np.ndarray:
        alive.append(number)
        return np.full(16, number, "<f4")

    tensors = {name: Tensor(name, (16,), "F32", lambda n=n: bits(n)) for n, name in enumerate("abc")}
    assert alive == []
    write_safetensors(tmp_path / "m.st", tensors)
    assert alive == [0, 1, 2]
