"""What takes long: PyPI's `rwkv` with torch finds the same bits per byte, and a million tokens take no memory."""

import importlib.util
import json
import math
import os
import subprocess
import sys
import time
from random import Random

import numpy as np
import psutil
import pytest

import rwkv_engine
from rwkv_engine.evaluation import texts
from rwkv_engine.evaluation.keeping import Keeper

pytestmark = pytest.mark.slow
PROGRAM = """
import json, sys
import torch
from safetensors.torch import load_file
from rwkv.model import RWKV
source, folder, ids = sys.argv[1], sys.argv[2], json.load(open(sys.argv[3]))
torch.save(load_file(source), folder + "/model.pth")
model, state, nats = RWKV(model=folder + "/model", strategy="cpu fp32"), None, 0.0
for token, following in zip([0, *ids], ids):
    logits, state = model.forward([token], state)
    nats -= torch.log_softmax(logits.double(), -1)[following].item()
print(nats)
"""


def grammar(number):
    """So many documents of the embedded model's grammar."""
    from rwkv_engine_weights.recipe.corpus import document

    for place in range(number):
        pieces = document(Random(f"bars {place}"), ("mixed", "stories", "talk")[place % 3])
        yield "".join(text for text, _ in pieces) + "\n\n"


@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("rwkv", "torch")),
    reason="PyPI's rwkv and torch are not installed",
)
def test_bits_per_byte_are_those_of_the_pip_package(tmp_path, embedded):
    text = "".join(grammar(3))
    (tmp_path / "t.txt").write_text(text)
    (tmp_path / "ids.json").write_text(json.dumps(embedded.tokenizer.encode(text)))
    (row,) = rwkv_engine.evaluate(texts=[tmp_path / "t.txt"], weights="f32", memory=False)
    env = os.environ | {"RWKV_JIT_ON": "0", "RWKV_CUDA_ON": "0", "RWKV_V7_ON": "1"}
    asked = [str(embedded.checkpoint.path), str(tmp_path), str(tmp_path / "ids.json")]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *asked], env=env, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]
    bits = float(done.stdout.split()[-1]) / math.log(2) / len(text.encode())
    print(f"{row.tokens} tokens: {row.bits_per_byte:.6f} bits a byte here, {bits:.6f} there")
    assert row.bits_per_byte == pytest.approx(bits, rel=1e-4)


@pytest.mark.long
def test_a_million_tokens_take_no_memory_and_hardly_longer_than_a_prompt_with_all_logits(tmp_path):
    model = rwkv_engine.load(weights="int8", threads=1)
    with open(tmp_path / "t.txt", "w") as file:
        some = list(grammar(300))
        size = sum(model.count(text) for text in some)
        for _ in range(1_010_000 // size + 1):
            file.writelines(some)
    process, seen = psutil.Process(), []

    def tell(line):
        seen.append(process.memory_info().rss)

    texts.read_text(model, None, texts.text_of(tmp_path / "t.txt"), 50_000, Keeper(None), tell)
    seen.clear()
    start = time.process_time()
    sums = texts.read_text(model, None, texts.text_of(tmp_path / "t.txt"), 1_000_000, Keeper(None), tell)
    speed = 1_000_000 / (time.process_time() - start)
    assert sum(block[0] for block in sums.blocks) == 1_000_000
    ids, prompts = np.arange(512), list[float]()
    for _ in range(20):
        start = time.process_time()
        model.feed(ids, model.new_state(), every=True)
        prompts.append(512 / (time.process_time() - start))
    grown = max(seen) - seen[0]
    print(f"{grown / 1e6:.2f} MB more, {speed:.0f} tokens/s, prompts {np.median(prompts):.0f}")
    assert grown < 5_000_000
    assert speed > 0.8 * np.median(prompts)
