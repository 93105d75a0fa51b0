"""What quantized formats lose against float32 on texts of trained models: mean Kullback-Leibler divergence."""

import dataclasses
from functools import partial

import numpy as np
import pytest
import vectors

import rwkv_engine
from rwkv_engine.checkpoints import open_checkpoint
from rwkv_engine.checkpoints.names import is_matrix
from rwkv_engine.model import Model
from rwkv_engine.numbers.blocks import Blocks, Kind
from rwkv_engine.numbers.tensor import Tensor

pytestmark = vectors.needed

#: model -> (text, divergence in nats that int8 has to stay under: that of rwkv.cpp's Q8_0; the same for int5, int4)
BARS = {
    "tiny-rwkv-4v0-660K": ("story", 7.8e-6, 8.5e-5, 4.5e-4),
    "tiny-rwkv-5v2-730K": ("story", 4.4e-4, 0.014, 0.025),
    "tiny-rwkv-6v0-1m": ("story16", 1.3e-4, 0.0019, 0.0061),
    "tiny-rwkv-7v0-834K": ("story", 1.3e-7, 2.5e-6, 8.1e-6),
}
#: the same against the exact numbers of a GGUF of this type: as int8, as int4
IN_KIND = {
    "tiny-rwkv-4v0-660K": {"Q8_0": 3e-6, "Q4_0": 4.5e-4},
    "tiny-rwkv-5v2-730K": {"Q8_0": 5e-5, "Q4_0": 0.025},
    "tiny-rwkv-6v0-1m": {"Q8_0": 1e-5, "Q4_0": 0.0061},
    "tiny-rwkv-7v0-834K": {"Q8_0": 1.3e-7, "Q4_0": 8.1e-6},
}


def log_probabilities(name, text, weights):
    return of_model(rwkv_engine.load(vectors.model(name), weights, threads=1, cache=False), text)


def of_model(model, text):
    logits = model.feed(vectors.tokens(text).reshape(-1), model.new_state(), every=True).astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


@pytest.mark.slow_but("7v0")
@pytest.mark.parametrize("name", BARS)
def test_quantized_formats_lose_little(name):
    text, *bars = BARS[name]
    want = log_probabilities(name, text, "f32")
    for weights, bar in zip(("int8", "int5", "int4"), bars, strict=True):
        got = log_probabilities(name, text, weights)
        divergence = (np.exp(want) * (want - got)).sum(axis=1).mean()
        print(f"{name} {weights}: {divergence:.2g}")
        assert 0 < divergence < bar, weights


def _same(blocks):
    return blocks


def quantized(checkpoint, kind):
    """The checkpoint as if a GGUF held its matrices in this type."""
    gguf = pytest.importorskip("gguf", reason="the package gguf, which quantizes, is not installed")
    number = gguf.GGMLQuantizationType[kind]
    tensors = dict(checkpoint.tensors)
    for name, one in tensors.items():
        if is_matrix(name, one):
            data = gguf.quants.quantize(one.float32(), number)
            blocks = Blocks(
                Kind(kind, *gguf.GGML_QUANT_SIZES[number]),
                data,
                lambda part: gguf.quants.dequantize(part, number),
            )
            tensors[name] = Tensor(
                name, one.shape, "F32", blocks.float32, kind=blocks.kind, blocks=partial(_same, blocks)
            )
    return dataclasses.replace(checkpoint, tensors=tensors)


@pytest.mark.slow_but("7v0")
@pytest.mark.parametrize("name", IN_KIND)
def test_a_quantized_gguf_in_kind_loses_little(name):
    for kind, bar in IN_KIND[name].items():
        checkpoint = quantized(open_checkpoint(vectors.model(name)), kind)
        want, got = (
            of_model(Model(checkpoint, weights, 1, None), BARS[name][0]) for weights in ("f32", None)
        )
        divergence = (np.exp(want) * (want - got)).sum(axis=1).mean()
        print(f"{name} {kind}: {divergence:.2g}")
        assert 0 < divergence < bar, kind
