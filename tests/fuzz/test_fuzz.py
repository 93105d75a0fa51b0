"""A few damaged inputs for every reader, and all that were once wrong; `python -m tests.fuzz` has as many as
one likes.
"""

import random
import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parents[1] / "checkpoints")]
from fuzz.readers import FOUND, READERS  # noqa: E402
from fuzz.running import of_case  # noqa: E402

CASES = 40


@pytest.mark.parametrize("name", READERS)
def test_damaged_input_ends_in_a_result_or_one_sentence(name, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    if name == "gguf":
        pytest.importorskip(
            "gguf", reason="the package gguf, which writes the file to be damaged, is not installed"
        )
    if name in ("schema", "regex"):
        pytest.importorskip("llguidance", reason="llguidance is not installed")
    make, read = READERS[name](tmp_path)
    for content in FOUND.get(name, ()):
        assert of_case(read, content) is None, content[:200]
    for number in range(CASES):
        content = make(random.Random(f"{name} 0 {number}"))
        assert of_case(read, content) is None, (number, content[:200])
