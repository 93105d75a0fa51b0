"""What F16 has no place for is refused by name, and what it has is exact, infinities included."""

import models
import numpy as np
import pytest

import rwkv_engine
from rwkv_engine import CheckpointError

NAME = "blocks.1.ffn.key.weight"


SQUASHED = (
    "blocks.0.att.w1",
    "blocks.0.att.g1",
)  # whose infinities end in a tanh or sigmoid, in every format
PLACES = [
    (name, value)
    for name in (NAME, *SQUASHED, "emb.weight", "head.weight")
    for value in (np.nan, np.inf, -np.inf)
]


@pytest.mark.parametrize(("name", "value"), [p for p in PLACES if p[0] not in SQUASHED or np.isnan(p[1])])
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


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
@pytest.mark.parametrize("value", [66_000.0, -1e30, np.inf, np.nan])
def test_a_number_too_large_for_f16_is_refused_by_name(checkpoints, tokenizer_file, tmp_path, dtype, value):
    tensors = {key: array.copy() for key, array in checkpoints("7")[1].items()}
    tensors[NAME][3, 5] = value
    path = models.write(tmp_path / "m.safetensors", tensors, dtype)
    with pytest.raises(CheckpointError, match=f"{NAME}.*65,504"):
        rwkv_engine.load(path, "f16", tokenizer=tokenizer_file)
