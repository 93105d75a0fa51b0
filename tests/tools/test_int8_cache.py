"""The cache of INT8 files: any change of a model is noticed, and nothing is read twice for it."""

import os
import time

import models
import numpy as np
import pytest

import rwkv_engine
from rwkv_engine.checkpoints import open_checkpoint
from rwkv_engine.system.folders import cache_folder
from rwkv_engine.tools.quantize import cached


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """A cache folder for each test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))


@pytest.mark.parametrize("name", ["emb.weight", "blocks.1.ffn.key.weight", "blocks.0.ln1.bias"])
@pytest.mark.parametrize("way", ["in place", "as a new file", "with its old time"])
def test_a_change_of_any_byte_gets_no_old_cache(tmp_path, checkpoints, tokenizer_file, name, way):
    """Also one that no sample sees, in a file of the same length."""
    source = tmp_path / "m.safetensors"
    tensors = models.random_model("7", heads=8, head_size=64, ffn=2048, vocab=256)
    models.write(source, tensors)
    time.sleep(0.2)  # what changed just now is not remembered
    cached(open_checkpoint(source), "int8")
    about = source.stat()
    (other := tensors[name].reshape(-1))[other.size * 2 // 3] *= -3
    changed = models.write(tmp_path / "n.safetensors", tensors)
    if way == "as a new file":
        os.replace(changed, source)
    else:
        source.write_bytes(changed.read_bytes())
    if way == "with its old time":
        os.utime(source, ns=(about.st_atime_ns, about.st_mtime_ns))
    took = cached(open_checkpoint(source), "int8").tensors
    for key, array in took.items():
        np.testing.assert_array_equal(
            array.float32(), cached_anew(tmp_path, tensors)[key].float32(), err_msg=key
        )


def cached_anew(tmp_path, tensors):
    """What quantizing makes of these tensors where there is no cache."""
    target = tmp_path / "anew.safetensors"
    if not target.exists():
        models.write(tmp_path / "once.safetensors", tensors)
        rwkv_engine.quantize(tmp_path / "once.safetensors", target, tokenizer="bytes")
    return open_checkpoint(target).tensors


def test_a_file_is_read_whole_once_and_its_copy_shares_the_cache(tmp_path, monkeypatch):
    source = models.write(tmp_path / "m.safetensors", models.random_model("7"))
    time.sleep(0.2)
    first = cached(open_checkpoint(source), "int8")
    (tmp_path / "copy.safetensors").write_bytes(source.read_bytes())
    assert cached(open_checkpoint(tmp_path / "copy.safetensors"), "int8").packing == first.packing
    assert len(list(cache_folder().glob("*.safetensors"))) == 1

    def refuse(*arguments, **more):
        raise AssertionError("the checkpoint is read as a whole again")

    monkeypatch.setattr("rwkv_engine.checkpoints.fingerprint.one_at_a_time", refuse)
    assert cached(open_checkpoint(source), "int8").packing == first.packing


@pytest.mark.parametrize("content", ["", "x" * 129, "a" * 64 + " " + "b" * 63, "\0"])
def test_a_damaged_memory_of_a_file_is_not_believed(tmp_path, content):
    source = models.write(tmp_path / "m.safetensors", models.random_model("7"))
    time.sleep(0.2)
    first = cached(open_checkpoint(source), "int8")
    (memory,) = (cache_folder() / "digests").iterdir()
    memory.write_text(content)
    assert cached(open_checkpoint(source), "int8").packing == first.packing
    assert memory.read_text().startswith(first.packing.fingerprint)
