"""What the tests of running share."""

import models
import pytest


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A model of 256 byte tokens, quick to run."""
    path = tmp_path_factory.mktemp("small") / "model.safetensors"
    return models.write(path, models.random_model("7", vocab=256))
