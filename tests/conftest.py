"""What the tests share: random models on disk, loaded once for each shape."""

import functools
import io
import os
import sys
from pathlib import Path

import models
import pytest

import rwkv_engine

# caches of the tests' own, so that nothing comes from the user's or stays there; who sets this variable has
# chosen a place
os.environ.setdefault("XDG_CACHE_HOME", str(Path(__file__).resolve().parents[1] / ".pytest_cache" / "user"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """`slow_but(*parts)`: a test is slow, except with parameters whose id has one of these parts."""
    for item in items:
        for mark in item.iter_markers("slow_but"):
            if not any(part in item.callspec.id for part in mark.args):
                item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """checkpoints(version, dtype, **shape) -> (path, the float32 numbers that the file holds)."""
    folder = tmp_path_factory.mktemp("models")

    @functools.cache
    def make(version, dtype="F32", **shape):
        tensors = models.random_model(version, **shape)
        path = folder / f"{version}-{dtype}-{len(list(folder.iterdir()))}.safetensors"
        return models.write(path, tensors, dtype), models.rounded(tensors, dtype)

    return make


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory):
    """A tokenizer.json of 64 ids, for models whose vocabulary is no standard one."""
    from tokenizers import Tokenizer
    from tokenizers import models as kinds

    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    Tokenizer(kinds.BPE({chr(48 + i): i for i in range(64)}, [])).save(str(path))
    return path


@pytest.fixture(scope="session")
def load(checkpoints, tokenizer_file):
    """load(version, dtype, threads=1, weights=None, **shape) -> (model, the float32 numbers that its file
    holds).
    """

    @functools.cache
    def make(version, dtype="F32", threads=1, weights=None, **shape):
        path, tensors = checkpoints(version, dtype, **shape)
        return rwkv_engine.load(path, weights, threads, tokenizer=tokenizer_file), tensors

    return make


@pytest.fixture(scope="session")
def embedded():
    """The model that comes with the engine."""
    return rwkv_engine.load()


@pytest.fixture
def rwkv(monkeypatch, capsys):
    """The command without a process of its own: quick, and with everything that is compiled already.

    rwkv(*arguments, status=0, text="") -> what it printed; with a status of 2, the one line that it
    complained in.
    """
    from rwkv_engine_cli.app import main

    def run(*arguments, status=0, text=""):
        monkeypatch.setattr(sys, "argv", ["rwkv", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode()), "utf-8"))
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        assert (left.value.code or 0) == status, err
        complaint = [line for line in err.splitlines() if "compiling" not in line]
        assert status == 0 or (len(complaint) == 1 and complaint[0].startswith("rwkv: ")), err
        return out if status == 0 else err

    return run


@pytest.fixture(scope="session", autouse=True)
def data_folder(tmp_path_factory):
    """The folder in which this run keeps conversations, in place of the user's."""
    folder = tmp_path_factory.mktemp("data")
    before = os.environ.get("XDG_DATA_HOME")
    os.environ["XDG_DATA_HOME"] = str(folder)
    yield folder
    if before is None:
        del os.environ["XDG_DATA_HOME"]
    else:
        os.environ["XDG_DATA_HOME"] = before
