"""The slow twins against golden vectors of trained models: what the engine is compared with is itself right."""

import numpy as np
import pytest
import reference
import vectors
from safetensors.numpy import load_file

pytestmark = vectors.needed
VARIANTS = [(name, "", 64e-5) for name in vectors.MODELS] + [("tiny-rwkv-5v2-730K", ".gn1e-5", 1e-5)]


@pytest.mark.parametrize("text", ["prompt", "chunks70"])
@pytest.mark.parametrize(("name", "variant", "eps"), VARIANTS)
def test_a_twin_gives_the_golden_logits(name, variant, eps, text):
    version, _, _ = vectors.MODELS[name]
    got, _ = reference.forward(
        version, load_file(vectors.model(name)), vectors.tokens(text), group_norm_eps=eps
    )
    np.testing.assert_allclose(got, vectors.logits(name, text, variant), atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize(("name", "variant", "eps"), VARIANTS)
def test_a_twin_leaves_the_golden_state(name, variant, eps):
    version, _, _ = vectors.MODELS[name]
    _, state = reference.forward(
        version, load_file(vectors.model(name)), vectors.tokens("prompt"), group_norm_eps=eps
    )
    for plane, values in vectors.state(name, variant).items():
        np.testing.assert_allclose(
            state[plane].reshape(values.shape), values, atol=2e-6, rtol=2e-6, err_msg=plane
        )


@pytest.mark.parametrize(
    ("name", "eps"), [(n, 1e-5 if "5v2" in n else 64e-5) for n in vectors.MODELS if n.startswith("tiny")]
)
def test_a_twin_agrees_with_rwkv_cpp(name, eps):
    version, _, _ = vectors.MODELS[name]
    got, _ = reference.forward(
        version, load_file(vectors.model(name)), vectors.tokens("prompt"), group_norm_eps=eps
    )
    np.testing.assert_allclose(got[-1], np.load(vectors.FOLDER / f"{name}.expected-logits.npy"), atol=2e-4)
