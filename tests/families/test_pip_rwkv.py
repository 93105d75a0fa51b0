"""The slow twins agree with PyPI's `rwkv` 0.8.32, where that package and torch are installed.

It chooses its family by environment variables at import, so each version runs in a process of its own.
"""

import importlib.util
import os
import subprocess
import sys

import models
import numpy as np
import pytest
import reference

pytestmark = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("rwkv", "torch")),
    reason="PyPI's rwkv and torch are not installed",
)
TOKENS = [3, 1, 4, 1, 5, 9, 2, 6, 53, 58, 0, 63]
PROGRAM = """
import sys
import numpy, torch
from rwkv.model import RWKV
source, out, tokens = sys.argv[1], sys.argv[2], [int(t) for t in sys.argv[3].split(",")]
arrays = numpy.load(source)
torch.save({name: torch.from_numpy(arrays[name]) for name in arrays.files}, source + ".pth")
model = RWKV(model=source if sys.argv[4] == "7" else source + ".pth", strategy="cpu fp32")
state, rows = None, []
for token in tokens:
    logits, state = model.forward([token], state)
    rows.append(logits.float().numpy().copy())
numpy.save(out, numpy.array(rows))
"""


@pytest.mark.parametrize("version", reference.VERSIONS)
def test_a_twin_agrees_with_the_pip_package(version, tmp_path):
    tensors = models.random_model(version, heads=2, head_size=64, layers=3, seed=7, layer0_residual="present")
    source, out = tmp_path / "model.npz", tmp_path / "logits.npy"
    np.savez(source, **tensors)
    env = os.environ | {"RWKV_JIT_ON": "0", "RWKV_CUDA_ON": "0", "RWKV_V7_ON": str(int(version == "7"))}
    command = [sys.executable, "-c", PROGRAM, str(source), str(out), ",".join(map(str, TOKENS)), version]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert out.exists(), done.stderr[-2000:]
    want, _ = reference.forward(version, tensors, TOKENS)
    got = np.load(out)
    error = np.abs(got - want).max() / np.abs(want).max()
    print(f"version {version}: largest difference {error:.1e} of the largest logit")
    assert error < 1e-5
