"""docs/devices.md is computed, by the script that it names."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_document_is_what_its_script_prints():
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "devices.py"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == (ROOT / "docs" / "devices.md").read_text()
