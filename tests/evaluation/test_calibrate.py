"""Calibrated int4 and int5: what they lose on a text that was not fitted on, the same bytes each time, and what is
refused.
"""

from random import Random

import numpy as np
import pytest
import vectors

import rwkv_engine
from rwkv_engine.checkpoints import open_checkpoint
from rwkv_engine.checkpoints.names import is_quantized
from rwkv_engine.shrinking import calibrate as calibrating
from rwkv_engine.shrinking.inputs import Layer, _Sums
from rwkv_engine.tools import quantize as packing

#: model -> (text that is read, divergence in nats that int4 stays under, fitted on another)
BARS = {
    "tiny-rwkv-4v0-660K": ("story", 5.5e-5),
    "tiny-rwkv-5v2-730K": ("story", 0.0075),
    "tiny-rwkv-6v0-1m": ("story16", 0.0027),
    "tiny-rwkv-7v0-834K": ("story", 1.0e-7),
}


def prose(letters, seed=0):
    """Stories of the embedded model's grammar."""
    from rwkv_engine_weights.recipe.corpus import prose

    text, number = "", 0
    while len(text) < letters:
        text += "".join(part for part, _ in prose(Random(f"{seed} {number}"))) + "\n"
        number += 1
    return text[:letters]


def log_probabilities(model, ids):
    logits = model.feed(ids, model.new_state(), every=True).astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


@vectors.needed
@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if "7v0" in name else pytest.mark.long) for name in BARS]
)  # two minutes each
def test_on_another_text_little_is_lost(name, tmp_path):
    text, bar = BARS[name]
    given = "".join(letter + "\0" * text.endswith("16") for letter in prose(8000))
    (tmp_path / "t.txt").write_text(given)
    target = tmp_path / "small.safetensors"
    done = rwkv_engine.calibrate(vectors.model(name), target, tmp_path / "t.txt", threads=1)
    assert done.warning is None
    assert all(loss.calibrated < 0.6 * loss.plain for loss in done.losses)
    ids = vectors.tokens(text).reshape(-1)
    want, got = (
        log_probabilities(rwkv_engine.load(path, threads=1), ids) for path in (vectors.model(name), target)
    )
    divergence = (np.exp(want) * (want - got)).sum(axis=1).mean()
    print(f"{name}: {divergence:.2g}")
    assert divergence < bar


@pytest.mark.slow
@pytest.mark.parametrize("format", ["int4", "int5"])
def test_two_runs_and_other_numbers_of_threads_give_the_same_bytes(format, tmp_path, checkpoints):
    path, _ = checkpoints("7", "F32", vocab=256)
    (tmp_path / "t.txt").write_bytes(bytes(np.random.default_rng(0).integers(1, 64, 600).astype(np.uint8)))
    found = []
    for number, threads in enumerate((1, 2, 1)):
        target = tmp_path / f"{number}.safetensors"
        rwkv_engine.calibrate(
            path, target, tmp_path / "t.txt", format, tokens=600, tokenizer="bytes", threads=threads
        )
        found.append(target.read_bytes())
    assert found[0] == found[1] == found[2]


@pytest.mark.slow
@pytest.mark.parametrize("version", ["4", "5.0", "5.2", "6", "7"])
def test_each_matrix_is_seen_with_inputs_of_its_own(version, checkpoints, monkeypatch):
    """Where nothing is quantized before it, the sums are those of its inputs, and it makes up for nothing."""
    path, _ = checkpoints(version, "F32")
    checkpoint, ids = open_checkpoint(path), np.arange(1, 50)
    form, seen = calibrating.format_named("int4"), {}
    layer = Layer(checkpoint, 1, form, [ids], 1)
    names = [
        name
        for name, one in checkpoint.tensors.items()
        if name.startswith("blocks.1.") and is_quantized(name, one)
    ]
    plain = _Sums.take

    def take(self, tokens):
        seen[id(self._seen[0])] = self._seen[0][:tokens].copy()
        plain(self, tokens)

    monkeypatch.setattr(_Sums, "take", take)
    fittings = layer.fittings(names, {})
    for name in names:
        rows = seen[id(layer._plain.watched[name].inputs)].astype(np.float64)
        assert np.abs(rows).max() > 0, name
        want = rows.T @ rows
        np.testing.assert_allclose(fittings[name].sums, want, atol=1e-3 * np.abs(want).max())
        assert not fittings[name].moves.any() and not fittings[name].wanted.any()
    shifted = {name: seen[id(layer._plain.watched[name].inputs)] for name in names}
    key, value = shifted["blocks.1.att.key.weight"], shifted["blocks.1.att.value.weight"]
    assert not np.allclose(key, value), "each letter has its own mix of a token and the one before it"


@pytest.fixture
def quick(monkeypatch):
    """Nothing is written by the model, nothing fitted, and no loss measured."""
    monkeypatch.setattr(calibrating, "_written", lambda model, tokens, seed: [np.arange(1, 20)])
    monkeypatch.setattr(calibrating, "_made", lambda *given: {})


def test_what_lost_more_is_not_kept(tmp_path, quick, monkeypatch):
    (tmp_path / "t.txt").write_text(prose(6000))
    written, lost, plain = [], iter((1e-3, 2e-3, 1e-3, 1e-4)), packing.quantize
    monkeypatch.setattr(calibrating, "_divergence", lambda *given: next(lost))

    def wrote(*given, made=packing.NOTHING, **named):
        written.append(made)
        plain(*given, **named)

    monkeypatch.setattr(packing, "quantize", wrote)
    done = rwkv_engine.calibrate(None, tmp_path / "s.safetensors", tmp_path / "t.txt")
    assert done.warning is not None and "not calibrated" in done.warning
    assert len(written) == 2 and written[1] is packing.NOTHING


@pytest.mark.parametrize(
    ("text", "options", "sentence"),
    [
        (b"", {}, "the text is empty"),
        (b"\xff\xfe" * 900, {}, "not UTF-8 text"),
        (b"Once upon a time.", {}, "at least 500"),
        (None, {}, "No such file"),
        (b"Once", {"format": "int8"}, "one of int5, int4"),
        (b"Once", {"format": "q4"}, "weights"),
        (b"Once", {"tokens": 10}, "500 or more"),
    ],
)
def test_what_cannot_be_calibrated_on_is_refused_in_one_sentence(tmp_path, text, options, sentence):
    path = tmp_path / "t.txt"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(rwkv_engine.OptionError, match=sentence):
        rwkv_engine.calibrate(None, tmp_path / "s.safetensors", path, **options)
    assert not (tmp_path / "s.safetensors").exists()
