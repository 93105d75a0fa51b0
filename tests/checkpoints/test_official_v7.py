"""Exports of transformers' Rwkv7ForCausalLM: ln0 is folded into their embedding, and they are F16."""

import json

import models
import numpy as np
import pytest
import reference
from reference.common import layer_norm

import rwkv_engine
from rwkv_engine import MissingTensor

TOKENS = np.random.default_rng(5).integers(0, 64, 20)


@pytest.fixture
def exported(checkpoints, tmp_path):
    """(folder, the tensors of the same model under BlinkDL's names)."""
    _, tensors = checkpoints("7", seed=4)
    rows = [layer_norm(tensors, "blocks.0.ln0", row) for row in tensors["emb.weight"].astype(np.float64)]
    own = {
        ("rwkv7." + name if name != "head.weight" else name).replace("emb.", "embeddings."): array
        for name, array in {**tensors, "emb.weight": np.array(rows)}.items()
        if ".ln0." not in name
    }
    models.write(tmp_path / "model.safetensors", own, "F16")
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["Rwkv7ForCausalLM"]}))
    return tmp_path, tensors


def close(got, want, most):
    np.testing.assert_allclose(got, want, rtol=0, atol=most * np.abs(want).max())


def test_an_official_export_gives_the_logits_of_its_model(exported, tokenizer_file):
    folder, tensors = exported
    want, _ = reference.forward("7", models.rounded(tensors, "F16"), TOKENS)
    model = rwkv_engine.load(folder, tokenizer=tokenizer_file)
    assert model.format == "f16" and model.checkpoint.layout == "Hugging Face v7"
    close(model.feed(TOKENS, model.new_state(), every=True), want, 3e-3)  # the folded rows are rounded, too


@pytest.mark.slow
def test_a_packed_official_export_still_knows_that_ln0_is_folded(exported, tokenizer_file, tmp_path):
    folder, tensors = exported
    rwkv_engine.quantize(folder, tmp_path / "out.st", tokenizer=tokenizer_file)
    packed = rwkv_engine.load(tmp_path / "out.st")
    want, _ = reference.forward("7", tensors, TOKENS)
    close(packed.feed(TOKENS, packed.new_state(), every=True), want, 0.1)


def test_an_export_that_says_it_folded_nothing_needs_its_ln0(exported, tokenizer_file):
    folder, _ = exported
    (folder / "config.json").write_text(json.dumps({"embedding_layer_norm_fused": False}))
    with pytest.raises(MissingTensor, match="blocks.0.ln0.weight"):
        rwkv_engine.load(folder, tokenizer=tokenizer_file)


def test_blinkdls_names_without_ln0_are_damage(checkpoints, tokenizer_file, tmp_path):
    tensors = {name: array for name, array in checkpoints("7")[1].items() if ".ln0." not in name}
    with pytest.raises(MissingTensor, match="blocks.0.ln0.weight"):
        rwkv_engine.load(models.write(tmp_path / "m.safetensors", tensors), tokenizer=tokenizer_file)
