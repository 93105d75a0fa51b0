"""Pulling models from a hub: resumed, checked, quantized, registered; or refused, and then nothing is
registered.
"""

import json
import os
import subprocess
import sys
import time
import types

import hub_server
import models
import numpy as np
import pytest

from rwkv_engine import CheckpointError, DownloadError, OptionError, pull
from rwkv_engine.library import registry
from rwkv_engine.library.known_models import KNOWN
from rwkv_engine.loading import open_named

PROGRAM = [sys.executable, "-m", "rwkv_engine_cli.app"]
MEGABYTE = 1 << 20


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A models folder of the test's own."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def hub():
    with hub_server.serving() as running:
        yield running


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A model's bytes: 64 tokens."""
    return models.write(
        tmp_path_factory.mktemp("small") / "m.safetensors", models.random_model("7")
    ).read_bytes()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A model's bytes: 65,536 tokens, 34 MB."""
    tensors = models.random_model("7", layers=1, heads=8, vocab=65536)
    return models.write(tmp_path_factory.mktemp("world") / "m.safetensors", tensors).read_bytes()


def started(*arguments, hub):
    env = {**os.environ, "HF_ENDPOINT": hub.url}
    return subprocess.Popen(
        [*PROGRAM, *arguments],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )


def finished(process):
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def files():
    """All files of the models folder that are not empty, relative to it."""
    folder = registry.models_folder()
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.stat().st_size)


def test_a_pull_that_is_killed_is_resumed_checked_quantized_and_found_by_name(hub, world, rwkv):
    hub.files["someone/tiny"] = {"model.pth": world, "README.md": b"x"}
    hub.stall = 12 * MEGABYTE
    first = started("pull", "someone/tiny", hub=hub)
    assert hub.stalled.wait(60)
    until = time.monotonic() + 30
    while not files() and time.monotonic() < until:
        time.sleep(0.02)  # until what was sent has been written
    first.kill()
    finished(first)
    assert registry.names() == [] and [name.rpartition("/")[2] for name in files()] == ["model.pth.part"]
    hub.stall = None
    status, out, err = finished(started("pull", "someone/tiny", hub=hub))
    assert status == 0, err
    assert out.startswith("tiny: RWKV-7, int8, ") and "checked" in err
    begun = int(hub.ranges()[-1].removeprefix("bytes=").rstrip("-"))
    assert hub.ranges()[0] is None and 0 < begun <= 12 * MEGABYTE and len(hub.ranges()) == 2
    record = registry.record("tiny")
    assert files() == [f"{record.path}", "tiny.json"] and record.revision == hub_server.COMMIT
    assert (record.family, record.format, record.source) == ("RWKV-7", "int8", "someone/tiny:model.pth")
    assert record.bytes == registry.path_of(record).stat().st_size
    assert rwkv("tokenize", " Hello", "-m", "tiny") == "36786\n"
    assert all(
        path.startswith(("/api/models/someone/tiny", "/someone/tiny/resolve/", "/large/"))
        for _, path, _ in hub.asked
    )


def test_a_connection_that_breaks_is_resumed_within_one_pull(hub, world):
    hub.files["someone/tiny"] = {"model.pth": world}
    hub.cut = [15 * MEGABYTE]
    record = pull("someone/tiny", format="keep", endpoint=hub.url)
    assert registry.path_of(record).read_bytes() == world
    assert [asked is None for asked in hub.ranges()] == [True, False]


def test_the_users_token_goes_to_the_hub_and_not_to_where_it_points(hub, small, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.files["someone/tiny"] = {"model.pth": small}
    pull("someone/tiny", format="keep", endpoint=hub.url)
    assert hub.ranges() and "/api/models/someone/tiny" in hub.trusted
    assert not [path for path in hub.trusted if path.startswith("/large/")]


def test_a_wrong_checksum_is_refused_and_leaves_nothing(hub, small):
    wrong = bytearray(small)
    wrong[-1] ^= 1
    hub.files["someone/tiny"] = {"model.safetensors": small}
    hub.lie["model.safetensors"] = bytes(wrong)
    with pytest.raises(DownloadError, match=r"got [0-9a-f]{16}..., want checksum [0-9a-f]{16}") as refused:
        pull("someone/tiny", endpoint=hub.url)
    assert "\n" not in str(refused.value)
    assert registry.names() == [] and files() == []
    status, out, err = finished(started("pull", "someone/tiny", hub=hub))
    assert status == 2 and out == "" and "want checksum" in err.splitlines()[-1]
    assert registry.names() == [] and files() == []


@pytest.mark.parametrize("change", [lambda b: b[:-7], lambda b: b + b"more"], ids=["shorter", "longer"])
def test_a_file_of_another_length_is_refused(hub, small, change):
    hub.files["someone/tiny"] = {"model.safetensors": small}
    hub.lie["model.safetensors"] = change(small)
    with pytest.raises(DownloadError):
        pull("someone/tiny", endpoint=hub.url)
    assert registry.names() == []
    del hub.lie["model.safetensors"]
    record = pull("someone/tiny", format="keep", endpoint=hub.url)
    assert registry.path_of(record).read_bytes() == small


def test_a_model_brings_its_tokenizer(hub, small, tokenizer_file):
    hub.files["someone/tiny"] = {
        "a/m.safetensors": small,
        "a/tokenizer.json": tokenizer_file.read_bytes(),
        "b/m.safetensors": small,
    }
    packed = registry.path_of(pull("someone/tiny:a/m.safetensors", name="x", endpoint=hub.url))
    assert open_named("x").path == packed and open_named("x").packing.tokenizer == tokenizer_file.read_text()
    kept = registry.path_of(pull("someone/tiny:a/m.safetensors", name="y", format="keep", endpoint=hub.url))
    assert (kept.parent / "tokenizer.json").read_bytes() == tokenizer_file.read_bytes()
    with pytest.raises(CheckpointError, match="no tokenizer"):
        pull("someone/tiny:b/m.safetensors", name="z", endpoint=hub.url)
    assert registry.names() == ["x", "y"]


def test_shards_are_fetched_together(hub, tokenizer_file):
    tensors, parts = models.random_model("7"), {}
    names = sorted(tensors)
    weight_map = {}
    for number, own in enumerate((names[::2], names[1::2]), 1):
        shard = f"model-{number:05}-of-00002.safetensors"
        path = models.write(tokenizer_file.parent / shard, {n: tensors[n] for n in own})
        parts[shard] = path.read_bytes()
        weight_map |= dict.fromkeys(own, shard)
    parts["model.safetensors.index.json"] = json.dumps({"weight_map": weight_map}).encode()
    hub.files["someone/shards"] = parts | {"tokenizer.json": tokenizer_file.read_bytes(), "other.bin": b"x"}
    kept = pull("someone/shards", name="kept", format="keep", endpoint=hub.url)
    opened = open_named("kept")
    assert opened.tensors.keys() == tensors.keys() and kept.format == "F32"
    assert all(np.array_equal(opened.tensors[name].float32(), array) for name, array in tensors.items())
    packed = pull("someone/shards", name="packed", endpoint=hub.url)
    assert packed.fingerprint == kept.fingerprint and open_named("packed").packing is not None


def test_what_is_already_here_is_not_fetched_again(hub, small):
    hub.files["someone/tiny"] = {"m.safetensors": small}
    first = pull("someone/tiny", format="keep", endpoint=hub.url)
    assert pull("someone/tiny", format="keep", endpoint=hub.url) == first and len(hub.ranges()) == 1
    changed = small[:-1] + bytes([small[-1] ^ 1])
    hub.files["someone/tiny"] = {"m.safetensors": changed}
    second = pull("someone/tiny", format="keep", endpoint=hub.url)
    assert registry.path_of(second).read_bytes() == changed and not registry.path_of(first).exists()


def test_two_pulls_at_once_fetch_once(hub, world):
    hub.files["someone/tiny"] = {"model.pth": world}
    both = [started("pull", "someone/tiny", hub=hub) for _ in range(2)]
    assert [finished(process)[0] for process in both] == [0, 0]
    assert len(hub.ranges()) == 1 and registry.names() == ["tiny"]
    assert files() == [registry.record("tiny").path, "tiny.json"]


def test_no_model_is_registered_that_does_not_run_here(hub, small):
    hub.files["someone/text"] = {"m.safetensors": b"This is a text and no model.\n"}
    hub.files["someone/cut"] = {"m.pth": small[:-100]}
    for name in ("text", "cut"):
        with pytest.raises(CheckpointError):
            pull(f"someone/{name}", endpoint=hub.url)
    assert registry.names() == [] and [name.rpartition("/")[2] for name in files()] == ["m.pth"]


def test_what_the_hub_refuses_is_one_sentence(hub, small):
    hub.files["someone/tiny"] = {"m.safetensors": small}
    hub.files["someone/down"] = {"m.safetensors": small}
    hub.status["/api/models/someone/down"] = 418
    for source, message in (
        ("someone/nothing", "no such thing"),
        ("someone/down", "refused .418."),
        ("someone/tiny:other.pth", "has no file 'other.pth'; it has m.safetensors"),
        ("word", "no known model; want one of g1d-0.1b"),
        ("a/b/c", "names no repository"),
    ):
        with pytest.raises((DownloadError, OptionError), match=message) as refused:
            pull(source, endpoint=hub.url)
        assert "\n" not in str(refused.value)
    with pytest.raises(OptionError, match="int8, int5, int4, keep"):
        pull("someone/tiny", format="int3", endpoint=hub.url)
    with pytest.raises(OptionError, match="model name"):
        pull("someone/tiny", name="../x", endpoint=hub.url)
    with pytest.raises(OptionError, match="tokenizer can be packed with a quantized model"):
        pull("someone/tiny", format="keep", tokenizer="world", endpoint=hub.url)
    hub.files["someone/tiny"]["n.pth"] = small
    with pytest.raises(OptionError, match="holds 2 models; say which"):
        pull("someone/tiny", endpoint=hub.url)


@pytest.mark.parametrize("broken", ["no folder", "full"])
def test_a_disk_that_refuses_is_one_sentence(hub, small, home, monkeypatch, broken):
    hub.files["someone/tiny"] = {"m.safetensors": small}
    if broken == "no folder":
        (home / "data").write_text("a file where a folder should be")
    else:

        def fail(*arguments):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("rwkv_engine.library.registry.write_whole", fail)
    with pytest.raises(DownloadError, match=r"cannot be used: \[Errno") as refused:
        pull("someone/tiny", format="keep", endpoint=hub.url)
    assert "\n" not in str(refused.value)
    assert registry.names() == [] and not [name for name in files() if name.startswith("data")]


def test_a_hub_that_does_not_answer_is_one_sentence():
    with pytest.raises(DownloadError, match="someone/tiny") as refused:
        pull("someone/tiny", endpoint="http://127.0.0.1:9")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("short", ["memory", "disk"])
def test_a_model_without_room_is_refused_with_the_estimate_unless_forced(hub, small, monkeypatch, short):
    hub.files["someone/tiny"] = {"m.safetensors": small}
    if short == "memory":
        monkeypatch.setattr("rwkv_engine.library.pull.physical_memory", lambda: 200_000_000)
        message = r"tiny needs about 27\d MB of memory to run, this machine has 200 MB"
    else:
        monkeypatch.setattr("shutil.disk_usage", lambda path: types.SimpleNamespace(free=1000))
        message = r"tiny takes \d\d.\d KB on disk while it is pulled \(\d\d.\d KB afterwards\)"
    with pytest.raises(DownloadError, match=message):
        pull("someone/tiny", format="keep", endpoint=hub.url)
    assert hub.ranges() == [] and files() == []
    assert pull("someone/tiny", format="keep", force=True, endpoint=hub.url).name == "tiny"


def test_a_known_name_is_looked_for_in_its_repository(hub, world, monkeypatch):
    row = KNOWN[0]
    repository, _, file = row.source.partition(":")
    hub.files[repository] = {file: world, "other.pth": world}
    monkeypatch.setattr("rwkv_engine.library.pull.physical_memory", lambda: row.footprint("int8").memory - 1)
    with pytest.raises(DownloadError, match=f"{row.name} needs about 444 MB"):
        pull(row.name, endpoint=hub.url)
    monkeypatch.setattr("rwkv_engine.library.pull.physical_memory", lambda: row.footprint("int8").memory)
    assert pull(row.name, endpoint=hub.url).name == row.name
