"""The engine against golden vectors of trained models: logits and states, one lane and two, whole and in
pieces.
"""

import numpy as np
import pytest
import vectors

import rwkv_engine

pytestmark = vectors.needed


@pytest.fixture(scope="module", params=[1, 2], ids=["one lane", "two lanes"])
def lanes(request):
    return request.param


@pytest.fixture(scope="module", params=vectors.MODELS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name, lanes):
    return rwkv_engine.load(vectors.model(name), threads=lanes)


@pytest.mark.parametrize("text", ["prompt", "chunks70"])
@pytest.mark.parametrize("piece", [1, 3, 1000], ids=["one by one", "by threes", "whole"])
def test_the_logits_are_the_golden_ones(model, name, text, piece):
    tokens, state = vectors.tokens(text), model.new_state()
    got = np.concatenate(
        [model.feed(tokens[i : i + piece], state, every=True) for i in range(0, len(tokens), piece)]
    )
    np.testing.assert_allclose(got, vectors.logits(name, text), atol=vectors.MODELS[name][1], rtol=0)


def test_the_state_is_the_golden_one(model, name):
    state = model.new_state()
    model.feed(vectors.tokens("prompt"), state)
    for plane, values in vectors.state(name).items():
        np.testing.assert_allclose(
            state[plane].reshape(values.shape), values, atol=1e-5, rtol=vectors.MODELS[name][2], err_msg=plane
        )
