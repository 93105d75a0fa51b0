"""A missing package is named with a command that installs it into the Python at hand, from an index that has
it.
"""

import os
import re
import shlex
import stat
import sys
from importlib import metadata
from pathlib import Path

import pytest

from rwkv_engine.errors import MissingExtra
from rwkv_engine.system import extras

PACKAGE = Path(extras.__file__).parents[1]
EXTRAS = sorted(set(metadata.metadata("rwkv-engine").get_all("Provides-Extra")) - {"test", "lint", "train"})


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_command_names_packages_that_an_index_has_and_not_this_one(extra):
    sentence = str(extras.missing("this", extra, "some-package"))
    words = shlex.split(sentence.partition("get it with: ")[2])
    names = [re.split("[<>=]", word)[0] for word in words[words.index("install") + 1 :]]
    assert names and not {"rwkv-engine", "some-package"} & set(names), sentence


def test_the_command_is_of_the_python_that_runs(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert extras.installer() == f"{shlex.quote(sys.executable)} -m pip install"
    pip = tmp_path / "pip"
    pip.write_text("")
    pip.chmod(pip.stat().st_mode | stat.S_IXUSR)
    assert extras.installer().startswith(shlex.quote(sys.executable)), "the pip of another Python"
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert extras.installer() == "pip install"
    monkeypatch.setenv("PATH", os.defpath)


def test_an_installation_without_records_names_the_package(monkeypatch):
    def none(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", none)
    error = extras.missing("this", "gguf", "gguf")
    assert str(error).endswith("install gguf") and isinstance(error, MissingExtra) and error.name == "gguf"


def test_no_message_names_this_package_as_one_that_an_index_has():
    for path in PACKAGE.rglob("*.py"):
        assert "pip install 'rwkv" not in path.read_text(), path
