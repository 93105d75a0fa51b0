"""What a family reads of a file: all of it, or the file is refused by name."""

import models
import numpy as np
import pytest
import reference

import rwkv_engine
from rwkv_engine import families
from rwkv_engine.checkpoints import open_checkpoint
from rwkv_engine.checkpoints.names import ENDS
from rwkv_engine.families.loader import Loader

EXTRA = (
    "blocks.1.att.key.lora_A",
    "blocks.0.att.receptance.bias",
    "head_q.weight",
    "head.bias",
    "copy_mask",
    "blocks.0.pos_emb_x",
    "blocks.0.tiny_q.weight",
    "blocks.1.ln0.weight",
    "blocks.0.ln3.weight",
)


class Asked(dict):
    """Tensors that write down who is asked for."""

    def __init__(self, tensors):
        super().__init__(tensors)
        self.names = set()

    def __getitem__(self, name):
        self.names.add(name)
        return super().__getitem__(name)


@pytest.mark.parametrize("version", reference.VERSIONS)
def test_the_table_of_a_family_names_what_it_reads(checkpoints, version):
    checkpoint = open_checkpoint(checkpoints(version)[0])
    config = families.config_of(checkpoint)
    family, asked = families.family_of(config), Asked(checkpoint.tensors)
    family.prepare(Loader(asked, config.layers, None), config)
    assert asked.names == set(checkpoint.tensors)
    assert {name.split(".", 2)[2] for name in asked.names - ENDS} <= family.reads


@pytest.mark.parametrize("name", EXTRA)
@pytest.mark.parametrize("version", ["4", "5.2", "6", "7"])
def test_a_tensor_that_no_formula_reads_is_refused_by_name(checkpoints, tmp_path, version, name):
    tensors = {**checkpoints(version)[1], name: np.ones((4, 16), np.float32)}
    path = models.write(tmp_path / "more.safetensors", tensors)
    for use in (
        rwkv_engine.load,
        rwkv_engine.describe,
        lambda p: rwkv_engine.quantize(p, tmp_path / "out.safetensors"),
    ):
        with pytest.raises(rwkv_engine.UnknownLayout, match=name) as refused:
            use(path)
        assert ("--lora" in str(refused.value)) == ("lora" in name)


@pytest.mark.parametrize("version", reference.VERSIONS)
def test_a_model_whose_norms_have_no_bias_runs(checkpoints, tokenizer_file, tmp_path, version):
    tensors = checkpoints(version)[1]
    bare = {name: array for name, array in tensors.items() if ".bias" not in name or ".ln_x" in name}
    path = models.write(tmp_path / "bare.safetensors", bare)
    zeros = {name: tensors[name] * 0 for name in tensors.keys() - bare.keys()}
    want, _ = reference.forward(version, {**bare, **zeros}, [3, 1, 4])
    model = rwkv_engine.load(path, tokenizer=tokenizer_file)
    got = model.feed([3, 1, 4], model.new_state(), every=True)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * np.abs(want).max())


@pytest.mark.parametrize(
    "name", ["blocks.1.ln1.bias", "blocks.0.ln0.bias", "ln_out.bias", "blocks.0.ln2.bias"]
)
def test_a_single_missing_bias_is_damage(checkpoints, tmp_path, name):
    tensors = {key: array for key, array in checkpoints("7")[1].items() if key != name}
    with pytest.raises(rwkv_engine.MissingTensor, match=name):
        rwkv_engine.load(models.write(tmp_path / "model.safetensors", tensors), tokenizer="bytes")
