"""The models that are known by name: what they take, and how they are listed."""

import re
import sys
from pathlib import Path

import models
import pytest

from rwkv_engine import pull
from rwkv_engine.checkpoints import open_checkpoint
from rwkv_engine.library import footprint as sizes
from rwkv_engine.library import registry
from rwkv_engine.library.known_models import KNOWN, KnownModel
from rwkv_engine.running import memory
from rwkv_engine.system.process import COMPILING
from rwkv_engine.tools.quantize import packed_bytes


def test_the_estimate_of_a_packed_model_is_what_packing_makes(tmp_path):
    ranks = (5, 6, 3, 7)
    tensors = models.random_model(
        "7", layers=3, heads=2, head_size=64, vocab=16384, ranks=ranks, layer0_residual="present"
    )
    path = models.write(tmp_path / "m.safetensors", tensors, "BF16")
    row, checkpoint = KnownModel("x", "x.pth", 0, 3, 128, ranks, 16384), open_checkpoint(path)
    assert {name: t.shape for name, t in row.headers().tensors.items()} == {
        name: array.shape for name, array in tensors.items()
    }
    got, kept = row.footprint("int8"), row.footprint("keep")
    assert got.file == packed_bytes(checkpoint)
    assert got.memory == memory.estimate(checkpoint, "int8").total + COMPILING
    assert kept.file == sum(2 * array.size for array in tensors.values()) < path.stat().st_size
    assert kept.memory == memory.estimate(checkpoint).total + COMPILING
    assert sizes.rough("int8", path.stat().st_size).file <= got.file


def test_known_models_grow_with_their_names_and_need_less_as_int8():
    for before, after in zip(KNOWN, KNOWN[1:], strict=False):
        assert before.bytes < after.bytes and before.footprint("int8").memory < after.footprint("int8").memory
    for row in KNOWN:
        assert row.footprint("int8").file < 0.7 * row.bytes
        assert row.footprint("keep").file == pytest.approx(row.bytes, rel=0.003)
        billions = float(row.name.rpartition("-")[2].rstrip("b"))
        assert 0.4 < row.bytes / 2e9 / (billions + 0.05) < 1.3, row


def test_what_a_broken_off_download_takes_is_told(rwkv):
    begun = registry.models_folder() / "downloads" / "x"
    begun.mkdir(parents=True)
    (begun / "m.pth.part").write_bytes(bytes(3_000_000))
    told = rwkv("models")
    assert "unfinished downloads: 3.0 MB" in told and str(begun.parent) in told


def test_the_verb_lists_known_models_without_the_network_and_as_the_documentation_does(rwkv):
    told = [re.split("  +", line)[:5] for line in rwkv("pull").splitlines()[1:]]
    assert [row[0] for row in told] == [row.name for row in KNOWN]
    page = (Path(__file__).resolve().parents[2] / "docs" / "models.md").read_text()
    assert all(f"| {' | '.join(row)} |" in page for row in told)


def test_a_missing_package_is_named(monkeypatch):
    from rwkv_engine import MissingExtra

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtra, match="install .*huggingface_hub"):
        pull("someone/tiny")
