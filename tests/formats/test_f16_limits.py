"""What F16 has no place for is refused by name, and what it has is exact, infinities included."""

import models
import numpy as np
import pytest

import rwkv_engine
from rwkv_engine import CheckpointError

NAME = "blocks.1.ffn.key.weight"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", [NAME, "emb.weight", "head.weight"])
def test_a_stored_f16_that_is_no_number_is_refused_by_name(
    checkpoints, tokenizer_file, tmp_path, name, value
):
    tensors = {key: array.copy() for key, array in checkpoints("7")[1].items()}
    tensors[name][1, 1:3] = value
    model = rwkv_engine.load(
        models.write(tmp_path / "m.safetensors", tensors, "F16"), threads=1, tokenizer=tokenizer_file
    )
    with pytest.raises(CheckpointError, match=f"{name} has NaN or infinite"):
        for text in ([1, 2, 3], [1]):
            model.feed(text, model.new_state())


@pytest.mark.parametrize("value", [np.nan, -np.inf])
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("name", ["blocks.0.att.w1", "blocks.1.att.g1", "blocks.1.att.a2", "blocks.1.att.v2"])
def test_an_infinity_that_a_tanh_or_sigmoid_would_hide_is_refused_by_name(
    checkpoints, tokenizer_file, tmp_path, name, dtype, value
):
    tensors = {key: array.copy() for key, array in checkpoints("7")[1].items()}
    tensors[name][1, 2] = value
    path = models.write(tmp_path / "m.safetensors", tensors, dtype)
    with pytest.raises(CheckpointError, match=f"{name} has NaN or infinite"):
        rwkv_engine.load(path, tokenizer=tokenizer_file)


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
@pytest.mark.parametrize("value", [66_000.0, -1e30, np.inf, np.nan])
def test_a_number_too_large_for_f16_is_refused_by_name(checkpoints, tokenizer_file, tmp_path, dtype, value):
    tensors = {key: array.copy() for key, array in checkpoints("7")[1].items()}
    tensors[NAME][3, 5] = value
    path = models.write(tmp_path / "m.safetensors", tensors, dtype)
    with pytest.raises(CheckpointError, match=f"{NAME}.*65,504"):
        rwkv_engine.load(path, "f16", tokenizer=tokenizer_file)
