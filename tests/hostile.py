"""Code of tests that runs in a process of its own, because what it looks for would hang or end pytest's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BEGIN = """
import faulthandler, gc, os, random, signal, sys, threading, time, warnings
import numpy as np
import rwkv_engine
from rwkv_engine import EngineError, StateError
from rwkv_engine.running import team
from rwkv_engine.running.team import Team
warnings.simplefilter("ignore")
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has it ignored by what it starts with &
faulthandler.dump_traceback_later(float(os.environ["HANGS_AFTER"]))

def load(threads=2):
    return rwkv_engine.load(sys.argv[1], threads=threads, tokenizer="bytes")

def usable(state):
    try: return state.fork() is not None
    except StateError: return False

def lies(state, model, tokens):
    "Whether a state is neither refused nor what reading its first `position` tokens gives."
    if not usable(state): return False
    true = model.new_state()
    if state.position: model.feed(tokens[:state.position], true)
    return not (true.position == state.position and np.allclose(true.block, state.block, atol=1e-4))
"""


def run(code, *arguments, timeout=100, begin=BEGIN, **variables):
    """Run code of a test in a process of its own, whose hanging would not be pytest's; what it printed."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", begin + code, *map(str, arguments)],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, "HANGS_AFTER": str(timeout - 5), **variables},
        )
    except subprocess.TimeoutExpired as late:
        pytest.fail(f"it hangs: {late.stdout!r} {late.stderr!r}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ignored" not in done.stderr, done.stderr
    return done.stdout
