"""RWKV-7a: its twin, its tables that stay in the file, and what an estimate says of them."""

import models
import numpy as np
import pytest
import reference

import rwkv_engine
from rwkv_engine.running import embedding

TOKENS = np.random.default_rng(5).integers(0, 64, 75)
SHAPE = {"heads": 3, "ffn": 83, "ranks": (3, 4, 9, 2)}


def close(got, want, most=1e-4):
    np.testing.assert_allclose(got, want, rtol=0, atol=most * np.abs(want).max())


@pytest.mark.parametrize("near", [False, True], ids=["mapped", "read row by row"])
@pytest.mark.parametrize("lanes", [1, 3])
def test_logits_and_state_are_the_twins(checkpoints, tokenizer_file, monkeypatch, lanes, near):
    if near:
        monkeypatch.setattr(embedding, "WORTH_READING", 0)
    path, tensors = checkpoints("7a", **SHAPE)
    want, planes = reference.forward("7a", tensors, TOKENS)
    model = rwkv_engine.load(path, threads=lanes, tokenizer=tokenizer_file)
    assert model.config.version == "7a"
    state = model.new_state()
    close(model.feed(TOKENS, state, every=True), want)
    for name in state.names:
        close(state[name].reshape(planes[name].shape), planes[name])
    single = model.new_state()
    close(np.array([model.feed([token], single) for token in TOKENS]), want)


def test_deep_embed_matters(checkpoints):
    tensors = checkpoints("7a", **SHAPE)[1]
    without = {name: array for name, array in tensors.items() if ".ffn.s" not in name}
    want, _ = reference.forward("7a", tensors, TOKENS[:9])
    other, _ = reference.forward("7", without, TOKENS[:9])
    assert np.abs(want - other).max() > 0.1 * np.abs(want).max()


@pytest.mark.slow
def test_a_packed_model_is_the_quantized_one(checkpoints, tokenizer_file, tmp_path):
    path, tensors = checkpoints("7a", **SHAPE)
    rwkv_engine.quantize(path, tmp_path / "out.st", tokenizer=tokenizer_file)
    model = rwkv_engine.load(tmp_path / "out.st", threads=1)
    want, _ = reference.forward("7a", tensors, TOKENS[:20])
    close(model.feed(TOKENS[:20], model.new_state(), every=True), want, 0.1)


def test_an_estimate_counts_no_table(checkpoints, tokenizer_file):
    small = rwkv_engine.describe(checkpoints("7a", **SHAPE)[0], tokenizer=tokenizer_file).memory["f32"]
    path, tensors = checkpoints("7a", vocab=6400, **SHAPE)
    large = rwkv_engine.describe(path, tokenizer=tokenizer_file).memory["f32"]
    tables = [array for name, array in tensors.items() if "emb.weight" in name]
    assert large.embedding == sum(array.nbytes for array in tables)
    head = tensors["head.weight"].nbytes
    assert large.total - small.total < head + 24 * 6400 + 1000


@pytest.mark.parametrize("name", ["s_emb.weight", "s_emb_x.weight", "s0", "s1", "s2"])
def test_a_part_of_the_wrong_shape_is_refused_by_name(checkpoints, tokenizer_file, tmp_path, name):
    tensors = dict(checkpoints("7a", **SHAPE)[1])
    key = f"blocks.1.ffn.{name}"
    tensors[key] = tensors[key][..., :-1]
    path = models.write(tmp_path / "m.safetensors", tensors)
    with pytest.raises(rwkv_engine.WrongShape, match=key):
        rwkv_engine.load(path, tokenizer=tokenizer_file)
