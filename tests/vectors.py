"""Golden vectors of real trained models, where they are: RWKV_VECTORS, or ../shared/vectors beside the
repository.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "vectors"
FOLDER = Path(os.environ.get("RWKV_VECTORS", _BESIDE))

needed = pytest.mark.skipif(
    not (FOLDER / "prompt.tokens.npy").is_file(),
    reason="no golden vectors: set RWKV_VECTORS to the folder that has them",
)

#: name -> (version, tolerance of logits for a float32 engine, relative tolerance of the state)
MODELS = {
    "tiny-rwkv-4v0-660K": ("4", 2e-5, 0.0),
    "tiny-rwkv-5v2-730K": ("5.2", 2e-5, 0.0),
    "tiny-rwkv-6v0-1m": ("6", 2e-5, 1e-5),
    "tiny-rwkv-7v0-834K": ("7", 2e-6, 0.0),
    "stress-rwkv-7v0": ("7", 2e-5, 0.0),
}
#: their names of planes -> ours
PLANES = {"att_x": "att_prev", "ffn_x": "ffn_prev", "wkv": "wkv", "aa": "aa", "bb": "bb", "pp": "pp"}


def model(name):
    return FOLDER / f"{name}.safetensors"


def tokens(text):
    return np.load(FOLDER / f"{text}.tokens.npy").astype(np.int64)


def logits(name, text, variant=""):
    return np.load(FOLDER / f"{name}{variant}.{text}.logits.npy")


def state(name, variant=""):
    """Planes as the engine has them: wkv [..., key, value], which v7's files have the other way round."""
    planes = {
        PLANES[k]: v for k, v in load_file(FOLDER / f"{name}{variant}.prompt.state.safetensors").items()
    }
    return planes | {"wkv": planes["wkv"].swapaxes(-1, -2)} if "-7v0" in name else planes
