"""The last step of the recipe, and what it made: half of the hidden units of the embedded model are gone."""

import math

from rwkv_engine_weights.recipe import smaller

import rwkv_engine
from rwkv_engine.loading import embedded as file_of


def test_the_card_tells_the_sizes_of_the_embedded_model(embedded):
    path, config = file_of(), embedded.config
    card = (path.parent / "CARD.md").read_text("utf-8")
    parameters = sum(math.prod(tensor.shape) for tensor in embedded.checkpoint.tensors.values())
    assert f"| {parameters:,}; BF16, {path.stat().st_size / 1e6:.1f} MB |" in card
    assert (
        f"{config.layers} layers, width {config.width}, {config.heads} heads of 64, FFN {config.ffn}" in card
    )


def test_the_step_takes_away_the_same_units_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(smaller, "TOKENS", 1000)
    monkeypatch.setattr(smaller, "LETTERS", 5000)
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        smaller.smaller(file_of(), tmp_path / name, 1, 0.25)
        made.append((tmp_path / name / "model.safetensors").read_bytes())
    assert made[0] == made[1] and "mean KL" in capsys.readouterr().out
    config = rwkv_engine.load(tmp_path / "one" / "model.safetensors").config
    assert config.ffn == 384
