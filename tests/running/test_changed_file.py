"""A model file that somebody writes to while it is mapped: told before a pass, and no signal."""

import os
import shutil

import hostile
import pytest

import rwkv_engine
from rwkv_engine import CheckpointError


@pytest.fixture
def copy(checkpoints, tmp_path):
    return shutil.copy(checkpoints("7", vocab=256)[0], tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    "change", ["os.truncate(path, 1000)", "open(path, 'r+b').write(b'x')", "open(path, 'wb').write(b'')"]
)
def test_a_file_that_was_written_to_is_told_of_before_a_pass(copy, change):
    code = f"""
path, model = sys.argv[1], load()
model.feed([1, 2], model.new_state())
{change}
os.utime(path)
try: model.feed([1], model.new_state())
except rwkv_engine.CheckpointError as error: print(error)
"""
    assert "has been changed since it was loaded" in hostile.run(code, copy)


def test_a_file_that_was_replaced_by_renaming_does_no_harm(copy, tmp_path):
    model = rwkv_engine.load(copy, tokenizer="bytes")
    (tmp_path / "new").write_bytes(b"something else")
    os.replace(tmp_path / "new", copy)
    assert model.feed([1], model.new_state()).shape == (256,)
    with pytest.raises(CheckpointError):
        rwkv_engine.load(copy, tokenizer="bytes")
