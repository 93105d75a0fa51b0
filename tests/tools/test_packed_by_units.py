"""Packed files with matrices stored by units, and older ones without."""

import importlib
import json
import re

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import rwkv_engine
from rwkv_engine.errors import CheckpointError
from rwkv_engine.numbers import unit_layout

TOKENS = [1, 2, 3, 5, 8, 13, 21, 34, 55]


def logits(model):
    return model.feed(TOKENS, model.new_state(), every=True)


def notes_of(packed):
    header = packed.read_bytes()
    length = int.from_bytes(header[:8], "little")
    return json.loads(json.loads(header[8 : 8 + length])["__metadata__"]["rwkv_engine"])


@pytest.fixture
def plain(checkpoints, tokenizer_file, tmp_path):
    """A packed RWKV-7 whose other tensors are float32, as which NumPy knows them."""
    target = tmp_path / "packed.safetensors"
    rwkv_engine.quantize(checkpoints("7")[0], target, tokenizer=tokenizer_file)
    return target


@pytest.mark.parametrize("name", ["head.weight", "blocks.1.att.key.weight", "blocks.0.ffn.key.weight"])
def test_only_a_matrix_that_skips_zeros_lies_by_units(checkpoints, tokenizer_file, tmp_path, name):
    """A product that reads it by rows would take its bytes for others."""
    packed, (source, tensors) = tmp_path / "packed.safetensors", checkpoints("7")
    rwkv_engine.quantize(source, packed, tokenizer=tokenizer_file)
    notes, shape = notes_of(packed), tensors[name].shape
    notes["formats"]["int8"].pop(name, None)
    notes["formats"]["int8-units"][name] = shape
    stored = np.zeros(unit_layout.shape_of(*shape), np.uint8)
    save_file(load_file(packed) | {name: stored}, packed, {"rwkv_engine": json.dumps(notes)})
    with pytest.raises(CheckpointError, match=f"{re.escape(name)}.*int8-units") as caught:
        rwkv_engine.load(packed)
    assert str(packed) in str(caught.value)


@pytest.mark.parametrize("version", [1, 2])
def test_a_packed_file_of_an_older_version_is_read_as_before(
    plain, checkpoints, tokenizer_file, tmp_path, monkeypatch, version
):
    """They had no matrices by units; version 1 had one format, and noted its matrices' shapes under its name."""
    want, old = logits(rwkv_engine.load(plain)), tmp_path / "old.safetensors"
    monkeypatch.setattr(
        importlib.import_module("rwkv_engine.tools.quantize"), "lies_in", lambda name, format: format
    )
    rwkv_engine.quantize(checkpoints("7")[0], old, tokenizer=tokenizer_file)
    notes = notes_of(old) | {"version": version}
    assert list(notes["formats"]) == ["int8"] and "int8-units" in notes_of(plain)["formats"]
    if version == 1:
        notes["int8"] = notes.pop("formats")["int8"]
    save_file(load_file(old), old, {"rwkv_engine": json.dumps(notes)})
    model = rwkv_engine.load(old)
    assert model.format == "int8"
    np.testing.assert_array_equal(logits(model), want)
