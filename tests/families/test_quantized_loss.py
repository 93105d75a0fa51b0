"""What quantized formats lose against float32 on texts of trained models: mean Kullback-Leibler divergence."""

import numpy as np
import pytest
import vectors

import rwkv_engine

pytestmark = vectors.needed

#: model -> (text, divergence in nats that int8 has to stay under: that of rwkv.cpp's Q8_0; the same for int4)
BARS = {
    "tiny-rwkv-4v0-660K": ("story", 7.8e-6, 4.5e-4),
    "tiny-rwkv-5v2-730K": ("story", 4.4e-4, 0.025),
    "tiny-rwkv-6v0-1m": ("story16", 1.3e-4, 0.0061),
    "tiny-rwkv-7v0-834K": ("story", 1.3e-7, 8.1e-6),
}


def log_probabilities(name, text, weights):
    model = rwkv_engine.load(vectors.model(name), weights, threads=1, cache=False)
    logits = model.feed(vectors.tokens(text).reshape(-1), model.new_state(), every=True).astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


@pytest.mark.slow_but("7v0")
@pytest.mark.parametrize("name", BARS)
def test_quantized_formats_lose_little(name):
    text, *bars = BARS[name]
    want = log_probabilities(name, text, "f32")
    for weights, bar in zip(("int8", "int4"), bars, strict=True):
        got = log_probabilities(name, text, weights)
        divergence = (np.exp(want) * (want - got)).sum(axis=1).mean()
        print(f"{name} {weights}: {divergence:.2g}")
        assert 0 < divergence < bar, weights
