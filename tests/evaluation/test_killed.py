"""Prune and distill killed at random moments: there is never half a target, and distill ends with the numbers
of a run that nobody killed.
"""

import importlib.util
import random
import subprocess
import sys
import time

import pytest

from rwkv_engine.checkpoints import open_checkpoint

pytestmark = pytest.mark.slow
KILLED = 20
STORY = "Once upon a time there was a kind girl named Mia. She had a red ball. Mia went to the park.\n\n"
PRUNE = """
import sys, rwkv_engine
print("begun", flush=True)
rwkv_engine.prune(None, sys.argv[1], ffn=0.5, text=sys.argv[2], threads=1, force=True)
"""
DISTILL = """
import sys, rwkv_engine
from rwkv_engine_weights.recipe import loop
loop.KEEP_SECONDS = 0.0
print("begun", flush=True)
course = rwkv_engine.Course(tokens=200 * 64, rows=1, length=64)
rwkv_engine.distill(
    None, sys.argv[1], layers=1, width=64, text=sys.argv[2], course=course, threads=1, force=True
)
"""


def run(program, target, text, patience=None):
    """Run a program; kill it so many seconds after it has begun. Returns how long it took, or None: killed."""
    with subprocess.Popen(
        [sys.executable, "-c", program, str(target), str(text)], stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        start = time.monotonic()
        try:
            assert process.wait(patience) == 0
        except subprocess.TimeoutExpired:
            process.kill()
            return None
        return time.monotonic() - start


@pytest.mark.parametrize("name", ["prune", "distill"])
def test_a_killed_run_leaves_no_half_target_and_a_last_one_the_same_numbers(tmp_path, name):
    if name == "distill" and not importlib.util.find_spec("torch"):
        pytest.skip("torch (extra `train`) is not installed")
    program = {"prune": PRUNE, "distill": DISTILL}[name]
    whole, target, text = tmp_path / "whole.safetensors", tmp_path / "target.safetensors", tmp_path / "t.txt"
    text.write_text(STORY * 40)
    run(program, whole, text)  # compiles
    seconds, rng, killed = run(program, whole, text), random.Random(1), 0
    vocabulary = (tmp_path / "tokenizer.json").read_bytes()
    while killed < KILLED:
        (tmp_path / "tokenizer.json").unlink(missing_ok=True)
        killed += run(program, target, text, rng.uniform(0, 0.6 * seconds)) is None
        if target.exists():
            assert (tmp_path / "tokenizer.json").read_bytes() == vocabulary
            assert target.read_bytes() == whole.read_bytes()
            target.unlink()
    run(program, target, text)
    assert target.read_bytes() == whole.read_bytes() and open_checkpoint(target).tensors
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"whole.safetensors", "target.safetensors", "t.txt", "tokenizer.json"}
