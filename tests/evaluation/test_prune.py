"""Pruning: the fit against a plain least-squares solution, an ordinary checkpoint comes out, and what is
refused.
"""

import numpy as np
import pytest

import rwkv_engine
from rwkv_engine.checkpoints import open_checkpoint
from rwkv_engine.shrinking.units import chosen_units, products, refitted

TEXT = "Once upon a time there was a kind girl named Mia. She had a red ball.\n\n"


def test_products_are_those_of_the_hidden_units_of_the_slow_twin(checkpoints, monkeypatch):
    from reference import common, forward

    path, tensors = checkpoints("7", "F32")
    units, plain = [], common.np.maximum
    monkeypatch.setattr(common.np, "maximum", lambda k, low: units.append(plain(k, low)) or units[-1])
    ids = np.arange(1, 61)
    forward("7", tensors, ids)
    monkeypatch.undo()
    last = np.array([u for u in units if u.shape == (64,)][1::2]) ** 2
    got = products(open_checkpoint(path), 1, [ids[:40], ids[40:]], 1)
    np.testing.assert_allclose(got, last.T @ last, rtol=1e-3, atol=1e-3 * np.abs(got).max())


def test_the_fit_is_that_of_least_squares():
    rng = np.random.default_rng(0)
    hidden = np.maximum(rng.normal(size=(400, 24)) @ rng.normal(size=(24, 24)), 0) ** 2
    value = rng.normal(size=(8, 24)).astype(np.float32)
    sums = hidden.T @ hidden
    kept = chosen_units(sums, value, 10)
    want = np.linalg.lstsq(hidden[:, kept], hidden @ value.T, rcond=None)[0].T
    np.testing.assert_allclose(refitted(sums, value, kept), want, rtol=1e-3, atol=1e-3)


def test_units_that_never_fire_are_the_first_to_go():
    sums = np.diag([0.0, 4, 1, 0, 9])
    value = np.ones((3, 5), np.float32)
    value[:, 4] = 1e-3
    assert chosen_units(sums, value, 2).tolist() == [1, 2]


def test_a_pruned_model_is_an_ordinary_checkpoint_that_reads_the_text_as_before(tmp_path, rwkv):
    (tmp_path / "t.txt").write_text(TEXT * 10)
    (tmp_path / "c.txt").write_text("zq xv ?! 77 + 12 = 89 QQQ ## " * 20)
    target = tmp_path / "small.safetensors"
    done = rwkv_engine.prune(None, target, ffn=0.5, text=tmp_path / "t.txt", check=tmp_path / "c.txt")
    assert (done.kept, done.units) == (256, 512)
    own, other = done.losses
    assert own.after < own.before + 0.01 and own.kl < 1e-3
    assert other.kl > own.kl and done.warning is not None and "fire on another" in done.warning
    tensors = open_checkpoint(target).tensors
    assert tensors["blocks.2.ffn.key.weight"].shape == (256, 256)
    assert tensors["blocks.2.ffn.value.weight"].shape == (256, 256)
    assert tensors["blocks.0.ffn.value.weight"].dtype == "BF16"
    rwkv_engine.quantize(target, tmp_path / "q.safetensors")
    assert (tmp_path / "tokenizer.json").is_file()
    assert "exists" in rwkv(
        "prune", target, tmp_path / "q.safetensors", "--ffn", 0.5, "--text", tmp_path / "t.txt", status=2
    )
    assert "packed" in rwkv(
        "prune",
        tmp_path / "q.safetensors",
        tmp_path / "r",
        "--ffn",
        0.5,
        "--text",
        tmp_path / "t.txt",
        status=2,
    )


@pytest.mark.parametrize(
    ("share", "why"),
    [(0, "share between"), (1, "share between"), (float("nan"), "share between"), (0.001, "removes none")],
)
def test_a_share_that_makes_no_sense_is_refused(tmp_path, rwkv, share, why):
    assert why in rwkv("prune", "embedded", tmp_path / "p", "--ffn", share, "--text", "embedded", status=2)


def test_an_empty_text_leaves_no_target(tmp_path, rwkv):
    (tmp_path / "t.txt").write_text("")
    complaint = rwkv(
        "prune", "embedded", tmp_path / "p", "--ffn", 0.5, "--text", tmp_path / "t.txt", status=2
    )
    assert "is empty" in complaint and not (tmp_path / "p").exists()
