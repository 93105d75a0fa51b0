"""What INT8 loses against float32 on texts of trained models: mean Kullback-Leibler divergence of the next
token.
"""

import numpy as np
import pytest
import vectors

import rwkv_engine

pytestmark = vectors.needed

#: model -> (text, divergence of rwkv.cpp's Q8_0 on it, in nats)
PEER = {
    "tiny-rwkv-4v0-660K": ("story", 7.8e-6),
    "tiny-rwkv-5v2-730K": ("story", 4.4e-4),
    "tiny-rwkv-6v0-1m": ("story16", 1.3e-4),
    "tiny-rwkv-7v0-834K": ("story", 1.3e-7),
}


def log_probabilities(name, text, weights):
    model = rwkv_engine.load(vectors.model(name), weights, threads=1, cache=False)
    logits = model.feed(vectors.tokens(text).reshape(-1), model.new_state(), every=True).astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("name", PEER)
def test_int8_loses_less_than_rwkv_cpp(name):
    text, peer = PEER[name]
    want, got = (log_probabilities(name, text, weights) for weights in ("f32", "int8"))
    divergence = (np.exp(want) * (want - got)).sum(axis=1).mean()
    assert 0 < divergence < peer
