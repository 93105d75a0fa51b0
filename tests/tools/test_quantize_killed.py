"""Quantizing that is killed leaves nothing half done."""

import os
import signal
import subprocess
import sys
import time

import models

import rwkv_engine


def test_a_killed_quantization_leaves_no_target_and_the_next_run_no_stray_file(tmp_path):
    """kill -9 at several moments of the writing."""
    folder = tmp_path / "models"  # the compile cache may lie in the user's folder, which is beside it here
    folder.mkdir()
    source = models.write(
        folder / "m.safetensors", models.random_model("7", heads=8, head_size=64, layers=2, vocab=65536)
    )
    target = folder / "q.safetensors"
    program = "import sys, rwkv_engine; rwkv_engine.quantize(sys.argv[1], sys.argv[2])"
    killed = 0
    for moment in (0.2, 0.3, 0.4, 0.5):
        process = subprocess.Popen([sys.executable, "-c", program, str(source), str(target)])
        parts = []
        deadline = time.monotonic() + 30
        while not parts and process.poll() is None and time.monotonic() < deadline:
            parts = list(folder.glob(".q.safetensors.*.part"))
            time.sleep(0.002)
        time.sleep((moment - 0.2) / 4)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        process.wait()
        if target.exists():
            rwkv_engine.load(target)
            target.unlink()
    assert killed
    rwkv_engine.quantize(source, target)
    assert sorted(p.name for p in folder.iterdir()) == ["m.safetensors", "q.safetensors"]
    rwkv_engine.load(target)
