"""LoRA matrices: merged as their trainers do, in every format, or refused by name."""

import json
import os
import pickle

import models
import numpy as np
import pytest
import reference
from checkpoint_files import write_torch

import rwkv_engine
from rwkv_engine import CheckpointError, OptionError, UnknownLayout, WrongShape

TOKENS = np.random.default_rng(5).integers(0, 64, 20)
ALPHA, RANK = 12.0, 4
TARGETS = [
    f"blocks.{n}.{m}" for n in range(2) for m in ("att.receptance", "att.output", "ffn.key", "ffn.value")
]


def lora(tensors, seed=1):
    """Halves for TARGETS, with numbers that matter."""
    rng = np.random.default_rng(seed)
    made = {}
    for target in TARGETS:
        rows, cols = tensors[f"{target}.weight"].shape
        made[f"{target}.lora_A"] = rng.normal(0, cols**-0.5, (RANK, cols)).astype(np.float32)
        made[f"{target}.lora_B"] = rng.normal(0, 0.2, (rows, RANK)).astype(np.float32)
    return made


def merged(tensors, halves):
    """The merge in float64."""
    result = {name: array.astype(np.float64) for name, array in tensors.items()}
    for target in TARGETS:
        up, down = (halves[f"{target}.lora_{half}"].astype(np.float64) for half in "BA")
        result[f"{target}.weight"] += up @ down * (ALPHA / RANK)
    return result


def close(got, want, most=1e-4):
    np.testing.assert_allclose(got, want, rtol=0, atol=most * np.abs(want).max())


def logits(path, tokenizer_file, **options):
    model = rwkv_engine.load(path, tokenizer=tokenizer_file, threads=1, **options)
    return model.feed(TOKENS, model.new_state(), every=True)


@pytest.fixture
def halves(checkpoints):
    return lora(checkpoints("7", "BF16")[1])


@pytest.fixture
def file(halves, tmp_path):
    return write_torch(tmp_path / "lora.pth", halves)


def test_a_lora_gives_the_logits_of_the_model_merged_in_float64(checkpoints, tokenizer_file, halves, file):
    path, tensors = checkpoints("7", "BF16")
    true = merged(tensors, halves)
    stored = models.rounded({name: array.astype(np.float32) for name, array in true.items()}, "BF16")
    want, _ = reference.forward("7", stored, TOKENS)
    plain, _ = reference.forward("7", tensors, TOKENS)
    assert np.abs(plain - want).max() > 0.1 * np.abs(want).max()  # it matters
    close(logits(path, tokenizer_file, lora=file, lora_alpha=ALPHA), want)


@pytest.mark.slow
def test_in_f32_no_number_of_the_merged_model_is_rounded(checkpoints, tokenizer_file, halves, file):
    path, tensors = checkpoints("7", "BF16")
    want, _ = reference.forward("7", merged(tensors, halves), TOKENS)
    close(logits(path, tokenizer_file, weights="f32", lora=file, lora_alpha=ALPHA), want)
    close(logits(path, tokenizer_file, weights="f16", lora=file, lora_alpha=ALPHA), want, 1e-2)


@pytest.mark.slow_but("False")
@pytest.mark.parametrize("cache", [True, False])
def test_int8_is_quantized_after_the_merge(checkpoints, tokenizer_file, halves, file, tmp_path, cache):
    path, tensors = checkpoints("7", "BF16")
    exact = models.write(tmp_path / "merged.safetensors", merged(tensors, halves), "F32")
    want = logits(exact, tokenizer_file, weights="int8", cache=False)
    options = {"weights": "int8", "lora": file, "lora_alpha": ALPHA, "cache": cache}
    for _ in range(2):  # made, then found
        close(logits(path, tokenizer_file, **options), want, 0.01)  # vectors and embedding are BF16 here
    assert np.abs(want - logits(path, tokenizer_file, weights="int8")).max() > 0.1 * np.abs(want).max()


def test_a_packed_model_has_the_lora_in_it(checkpoints, tokenizer_file, file, tmp_path):
    path, _ = checkpoints("7", "BF16")
    packed = tmp_path / "packed.safetensors"
    rwkv_engine.quantize(path, packed, tokenizer=tokenizer_file, lora=file, lora_alpha=ALPHA)
    own = rwkv_engine.load(packed)
    loaded = rwkv_engine.load(path, "int8", tokenizer=tokenizer_file, lora=file, lora_alpha=ALPHA)
    assert (
        own.fingerprint == loaded.fingerprint != rwkv_engine.load(path, tokenizer=tokenizer_file).fingerprint
    )
    np.testing.assert_array_equal(own.feed(TOKENS, own.new_state()), loaded.feed(TOKENS, loaded.new_state()))
    with pytest.raises(OptionError, match="is packed and takes no LoRA"):
        rwkv_engine.load(packed, lora=file, lora_alpha=ALPHA)


def test_a_peft_folder_brings_its_alpha(checkpoints, tokenizer_file, halves, file, tmp_path):
    path, _ = checkpoints("7", "BF16")
    folder = tmp_path / "peft"
    folder.mkdir()
    names = {f"base_model.model.{name}.weight": array for name, array in halves.items()}
    models.write(folder / "adapter_model.safetensors", names)
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": 12, "use_rslora": False, "alpha_pattern": {}}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    want = logits(path, tokenizer_file, lora=file, lora_alpha=ALPHA)
    np.testing.assert_array_equal(logits(path, tokenizer_file, lora=folder), want)
    (folder / "adapter_config.json").write_text(json.dumps({**settings, "use_rslora": True}))
    with pytest.raises(CheckpointError, match="use_rslora is True, which is no plain LoRA"):
        rwkv_engine.load(path, lora=folder)


def test_what_was_trained_whole_takes_the_place_of_the_models(checkpoints, tokenizer_file, halves, tmp_path):
    path, tensors = checkpoints("7", "BF16")
    norm = {"blocks.1.ln2.weight": np.linspace(0.1, 2, 16, dtype=np.float32)}
    file = models.write(tmp_path / "lora.safetensors", {**halves, **norm})
    want, _ = reference.forward("7", {**merged(tensors, halves), **norm}, TOKENS)
    close(logits(path, tokenizer_file, weights="f32", lora=file, lora_alpha=ALPHA), want)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (lambda t: t.pop("blocks.0.ffn.key.lora_B"), CheckpointError, "lacks lora_B"),
        (lambda t: t.update({"blocks.0.ffn.key.lora_A": np.ones((4, 3), np.float32)}), WrongShape, "another model"),
        (lambda t: t.update({"blocks.0.ffn.key.lora_B": np.ones((64, 3), np.float32)}), WrongShape, "another model"),
        (lambda t: t.update({"blocks.9.ffn.key.lora_A": np.ones((4, 16), np.float32)}), UnknownLayout, "blocks.9"),
        (lambda t: t.update({"blocks.0.ffn.key.bone": np.ones((4, 16), np.float32)}), UnknownLayout, "key.bone"),
        (lambda t: t.update({"emb.lora_A": np.ones((4, 16), np.float32)}), UnknownLayout, "emb.lora_A"),
        (lambda t: [t.pop(n) for n in list(t)] and t.update({"ln_out.bias": np.ones(16, np.float32)}), UnknownLayout, "no LoRA"),
    ],
)  # fmt: skip
def test_what_is_no_lora_of_the_model_is_refused_by_name(checkpoints, halves, tmp_path, change, error, said):
    change(halves)
    file = models.write(tmp_path / "lora.safetensors", halves)
    with pytest.raises(error, match=said) as refused:
        rwkv_engine.describe(checkpoints("7", "BF16")[0], lora=file, lora_alpha=8)
    assert str(file) in str(refused.value)


@pytest.mark.parametrize("alpha", [0, float("nan"), float("inf"), "x", 1e300])
def test_an_alpha_that_makes_no_sense_is_refused(checkpoints, file, alpha):
    with pytest.raises(OptionError, match="lora_alpha"):
        rwkv_engine.load(checkpoints("7", "BF16")[0], lora=file, lora_alpha=alpha)


def test_a_pickled_model_has_its_lora_still(checkpoints, tokenizer_file, file):
    path = checkpoints("7", "BF16")[0]
    model = rwkv_engine.load(
        path, tokenizer=tokenizer_file, threads=1, lora=os.path.relpath(file), lora_alpha=ALPHA
    )
    twin = pickle.loads(pickle.dumps(model))
    first, second = (one.feed(TOKENS, one.new_state()) for one in (model, twin))
    assert np.array_equal(first, second)


def test_alpha_and_lora_go_together(checkpoints, file):
    path, _ = checkpoints("7", "BF16")
    with pytest.raises(OptionError, match="give lora_alpha"):
        rwkv_engine.load(path, lora=file)
    with pytest.raises(OptionError, match="give lora"):
        rwkv_engine.load(path, lora_alpha=8)


def test_the_estimate_counts_merged_matrices_as_private(checkpoints, tokenizer_file, file):
    path, _ = checkpoints("7", "BF16")
    plain = rwkv_engine.describe(path, tokenizer=tokenizer_file).memory["bf16"]
    own = rwkv_engine.describe(path, tokenizer=tokenizer_file, lora=file, lora_alpha=8).memory["bf16"]
    assert own.private > plain.private
    assert own.private - plain.private == plain.mapped - own.mapped


def test_the_command_takes_a_lora(rwkv, checkpoints, tokenizer_file, file):
    path, _ = checkpoints("7", "BF16")
    say = ["generate", "0", "-m", path, "--tokenizer", tokenizer_file, "--max-tokens", 8, "--temperature", 0]
    plain = rwkv(*say, "--no-prefix-cache")
    assert rwkv(*say, "--no-prefix-cache", "--lora", file, "--lora-alpha", 40) != plain
    assert "--lora-alpha" in rwkv(*say, "--lora", file, status=2)
