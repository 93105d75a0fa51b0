"""A family from outside of the engine, registered by one line: all that is done with a model is done with it."""

from pathlib import Path

import models
import numpy as np
import pytest
import toy_family
from numba.core import caching
from reference.common import layer_norm, sigmoid, sizes

import rwkv_engine
from rwkv_engine import families
from rwkv_engine.bench import measure
from rwkv_engine.checkpoints import open_checkpoint
from rwkv_engine.families import program
from rwkv_engine.running import embedding, memory
from rwkv_engine.state import State

TOKENS = np.random.default_rng(1).integers(0, 256, 75)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """The one line.

    Nothing is kept on disk: the compile cache knows the sources of the package, not of tests.
    """
    monkeypatch.setattr(families, "FAMILIES", (*families.FAMILIES, toy_family.FAMILY))
    monkeypatch.setattr(program.step, "_cache", caching.NullCache())


@pytest.fixture(scope="module")
def tensors():
    return toy_family.random_tensors()


@pytest.fixture(scope="module")
def path(tensors, tmp_path_factory):
    return models.write(tmp_path_factory.mktemp("toy") / "toy.safetensors", tensors)


def twin(tensors, tokens):
    """(logits [T, V], planes) of the toy in plain float64."""
    z = {name: array.astype(np.float64) for name, array in tensors.items()}
    layers, width = sizes(z)
    state = {name: np.zeros((layers, width)) for name in ("att_prev", "ffn_prev", "leaky")}
    logits = []
    for token in tokens:
        x = layer_norm(z, "blocks.0.ln0", z["emb.weight"][token])
        for n in range(layers):
            p = f"blocks.{n}."
            h, before = layer_norm(z, p + "ln1", x), state["att_prev"][n].copy()
            put, gate = (h + (before - h) * z[f"{p}att.mix_{name}"] for name in ("put", "gate"))
            state["att_prev"][n] = h
            state["leaky"][n] = z[p + "att.forget"] * state["leaky"][n] + z[p + "att.put.weight"] @ put
            kept = sigmoid(z[p + "att.gate.weight"] @ gate) * state["leaky"][n]
            x = x + z[p + "att.give.weight"] @ kept
            h, before = layer_norm(z, p + "ln2", x), state["ffn_prev"][n].copy()
            state["ffn_prev"][n] = h
            hidden = np.maximum(z[p + "ffn.up.weight"] @ (h + (before - h) * z[p + "ffn.mix_up"]), 0) ** 2
            x = x + z[p + "ffn.down.weight"] @ hidden + z[p + "ffn.table"][token]
        logits.append(z["head.weight"] @ layer_norm(z, "ln_out", x))
    return np.array(logits), state


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * np.abs(want).max())


@pytest.mark.parametrize("lanes", [1, 2])
def test_it_runs_as_its_twin_says(path, tensors, lanes):
    model = rwkv_engine.load(path, threads=lanes)
    want, planes = twin(tensors, TOKENS)
    whole, single = model.new_state(), model.new_state()
    assert model.config.family == "toy" and whole.names == tuple(planes)
    close(model.feed(TOKENS, whole, every=True), want)
    close([model.feed([token], single) for token in TOKENS], want)
    for name, plane in planes.items():
        close(whole[name], plane)


def test_it_sees_the_ids_of_tokens_whose_embeddings_are_read_from_the_file(path, tensors, monkeypatch):
    monkeypatch.setattr(embedding, "WORTH_READING", 0)
    model = rwkv_engine.load(path, threads=1)
    close(model.feed(TOKENS, model.new_state(), every=True), twin(tensors, TOKENS)[0])


def test_sequences_of_a_batch_are_kept_apart(path):
    model = rwkv_engine.load(path, threads=2)
    lengths, together = (1, 40, 3), [model.new_state() for _ in range(3)]
    rows = model.feed_batch([(TOKENS[:n], state) for n, state in zip(lengths, together, strict=True)])
    for n, row, state in zip(lengths, rows, together, strict=True):
        alone = model.new_state()
        close(row, model.feed(TOKENS[:n], alone))
        close(state.block, alone.block)


def test_it_generates(path):
    model = rwkv_engine.load(path, threads=1)
    steps = list(model.generate([1, 2, 3], max_tokens=5, sampling=rwkv_engine.Sampling(temperature=0)))
    assert len(steps) == 5


def test_its_states_survive_their_files(path, tmp_path):
    model = rwkv_engine.load(path, threads=1)
    state = model.new_state()
    model.feed(TOKENS[:5], state)
    state.save(tmp_path / "state")
    assert model.load_state(tmp_path / "state") == state and isinstance(state, State)


@pytest.fixture(scope="module")
def packed(path, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(families, "FAMILIES", (*families.FAMILIES, toy_family.FAMILY))
        target = tmp_path_factory.mktemp("packed") / "toy-int8.safetensors"
        rwkv_engine.quantize(path, target)
    return target


def test_it_is_quantized(packed, path, tensors):
    model = rwkv_engine.load(packed, threads=1)
    want, _ = twin(tensors, TOKENS[:20])
    got = model.feed(TOKENS[:20], model.new_state(), every=True)
    assert model.format == "int8"
    assert 1e-5 < np.abs(got - want).max() / np.abs(want).max() < 0.05


@pytest.mark.parametrize("weights", [None, "bf16", "int8"])
def test_its_memory_is_told_before_it_is_loaded(path, weights):
    found = memory.estimate(open_checkpoint(path), weights)
    model = rwkv_engine.load(path, weights, threads=1)
    state = 2 * model.new_state().nbytes
    assert found.state == state and found.private + found.mapped >= model.weight_bytes


@pytest.mark.slow
def test_it_is_measured(packed, tmp_path, monkeypatch):
    here = Path(toy_family.__file__).parent
    (tmp_path / "sitecustomize.py").write_text(
        f"import sys; sys.path.append({str(here)!r})\n"
        "import toy_family; from rwkv_engine import families\n"
        "families.FAMILIES = (*families.FAMILIES, toy_family.FAMILY)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # for the processes that `measure` starts
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    report = measure(str(packed), threads=1, tokens=4, prompts=(5,), trials=1)
    assert report.model["family"] == "RWKV-toy" and report.decode > 0 and report.first_token > 0
    assert len(report.ffn_zeros) == 2 and all(0 < share < 1 for share in report.ffn_zeros)
