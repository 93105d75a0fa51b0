"""What the tests share: random models on disk, loaded once for each shape."""

import functools

import models
import pytest

import rwkv_engine


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
    """load(version, dtype, threads=1, weights=None, **shape) -> (model, the float32 numbers that its file holds)."""

    @functools.cache
    def make(version, dtype="F32", threads=1, weights=None, **shape):
        path, tensors = checkpoints(version, dtype, **shape)
        return rwkv_engine.load(path, weights, threads, tokenizer=tokenizer_file), tensors

    return make


@pytest.fixture(scope="session")
def embedded():
    """The model that comes with the engine."""
    return rwkv_engine.load()
