"""The offer to pull a model whose name is known and which is not here."""

import re

import pytest
from terminal import Terminal

#: the command, with a hub that gives the embedded model for every name
PLAYED = """
import shutil, sys
import rwkv_engine
from rwkv_engine.library import pull, registry
from rwkv_engine.loading import embedded

def fetch(name, say, progress):
    folder = registry.new_folder(name)
    shutil.copytree(embedded().parent, folder / "m", ignore=shutil.ignore_patterns("*.py", "recipe"))
    for file in (folder / "m").iterdir():
        file.rename(folder / file.name)
    path = str((folder / "model.safetensors").relative_to(registry.models_folder()))
    registry.register(registry.Record(name, "RWKV-7", "BF16", 1, path, "x/y:z", "0", "0", "0"))
    say(f"got {name}")

pull.pull = fetch
from rwkv_engine_cli.app import main
main()
"""


@pytest.fixture
def asked(tmp_path):
    """asked(answer, *arguments) -> (what the terminal showed, exit status)."""

    def run(answer, *arguments):
        program = Terminal(arguments, program=("-c", PLAYED), rows=20, XDG_DATA_HOME=str(tmp_path))
        program.wait(lambda: "[y/N]" in program.text())
        program.program.send(answer)
        program.wait(lambda: False)
        program.close()
        return program.text(), program.program.exitstatus

    return run


def test_a_known_name_that_is_not_here_is_offered_and_then_used(asked):
    shown, status = asked("n\r", "generate", "Once", "-m", "g1d-0.1b", "--max-tokens", "2")
    assert "g1d-0.1b is not here. Get it (382 MB)? [y/N]" in shown and status == 2
    assert "`rwkv pull g1d-0.1b` gets it" in shown and "got " not in shown
    shown, status = asked("y\r", "info", "g1d-0.1b")
    assert "got g1d-0.1b" in shown and "RWKV-7" in shown and status == 0


def test_nothing_is_asked_without_a_terminal_nor_for_names_that_are_not_known(rwkv, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert re.search(r"`rwkv pull g1d-0\.1b` gets it", rwkv("info", "g1d-0.1b", status=2))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert "?" not in rwkv("info", "g1d-0.1b", status=2)
