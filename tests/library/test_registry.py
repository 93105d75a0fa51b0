"""Short names for models: what they resolve to, and that nothing half-done is ever registered."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import models
import pytest

from rwkv_engine import CheckpointError, EngineError, OptionError, quantize
from rwkv_engine.library import registry
from rwkv_engine.library.pull import pull
from rwkv_engine.loading import embedded, open_named

RECORD = registry.Record(
    "tiny", "RWKV-7", "F32", 10, "", "someone/tiny:m.safetensors", "a" * 40, "b" * 64, "c" * 64
)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A models folder of the test's own, and an empty working folder."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def registered(name="tiny", seed=0):
    folder = registry.new_folder(name)
    path = models.write(folder / "m.safetensors", models.random_model("7", seed=seed))
    record = replace(RECORD, name=name, path=str(path.relative_to(registry.models_folder())))
    registry.register(record)
    return record


def test_a_name_stands_for_its_file():
    record = registered()
    assert registry.names() == ["tiny"] and registry.record("tiny") == record
    assert registry.resolve("tiny") == registry.path_of(record)
    assert open_named("tiny").path == registry.path_of(record)


def test_a_path_that_exists_wins_over_a_name(home):
    registered()
    own = models.write(home / "work" / "tiny", models.random_model("6"))
    assert registry.resolve("tiny").samefile(own)
    assert "blocks.0.att.time_maa_x" in open_named("tiny").tensors


def test_an_unknown_name_says_what_names_there_are():
    with pytest.raises(CheckpointError, match="none is registered yet"):
        open_named("tiny")
    registered("one")
    registered("two")
    with pytest.raises(
        CheckpointError, match="three does not exist, and no model is called so; there are one, two"
    ):
        open_named("three")


@pytest.mark.parametrize("path", ["folder/m", "./m", "/absent/m.pth"])
def test_what_is_written_like_a_path_is_no_name(path):
    assert str(registry.resolve(path)) in (path, path.removeprefix("./"))
    with pytest.raises(CheckpointError, match="does not exist; give the path"):
        open_named(path)


def test_a_model_that_is_registered_again_replaces_the_old_one():
    old = registered(seed=1)
    new = registered(seed=2)
    assert old.path != new.path and registry.record("tiny") == new
    assert not registry.path_of(old).exists() and registry.path_of(new).exists()


def test_a_removed_model_leaves_nothing():
    registered("one")
    two = registered("two")
    registry.remove("one")
    assert registry.names() == ["two"] and registry.path_of(two).exists()
    with pytest.raises(CheckpointError, match="no model is called 'one'; there are two"):
        registry.remove("one")
    registry.remove("two")
    assert [p for p in registry.models_folder().rglob("*") if p.is_file()] == []


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", ".hidden", "-m", "ä", "x" * 101, "a\nb"])
def test_a_name_that_could_be_a_path_or_an_option_is_refused(name):
    for act in (
        registry.new_folder,
        registry.remove,
        lambda n: registry.register(replace(RECORD, name=n, path="data/x")),
    ):
        with pytest.raises(OptionError):
            act(name)


@pytest.mark.parametrize(
    "change",
    [
        {"path": "../../secret"},
        {"path": "/etc/passwd"},
        {"path": 5},
        {"bytes": "many"},
        {"version": 2},
        {"name": "other"},
        {"extra": 1},
        {"path": "data"},
        {"path": "data/other@00000000/m.safetensors"},
        {"path": "data/tiny@0000000/m.safetensors"},
        {"path": "data/tiny@00000000/../other@00000000"},
        {"path": "data//tiny@00000000/x"},
        {"path": "data/tiny@00000000/a/b"},
        {"path": "data/tiny@00000000/" + "x" * 300},
        {"path": "data/tiny@00000000/x\0"},
        {"path": "data/tiny@00000000/\ud800"},
        {"bytes": -1},
        {"bytes": True},
        {"source": "\x1b[31m"},
        {"source": "x" * 100_000},
        None,
    ],
    ids=str,
)
def test_a_damaged_record_is_refused_and_can_be_removed(change):
    registered()
    path = registry.models_folder() / "tiny.json"
    path.write_text("{" if change is None else json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match="damaged"):
        open_named("tiny")
    other = registered("other")
    registry.remove("tiny")
    assert registry.names() == ["other"] and registry.path_of(other).exists()
    assert [path.name[:6] for path in (registry.models_folder() / "data").iterdir()] == ["other@"]


def test_a_damaged_record_deletes_no_other_models_files_nor_are_its_own_cleared_away():
    kept, bad = registered("kept"), registered("bad")
    (registry.models_folder() / "bad.json").write_text("{")
    left = registry.models_folder() / "data" / "kept@00000000"
    left.mkdir()
    registry.clear_leftovers()
    assert registry.path_of(kept).exists() and registry.path_of(bad).exists() and not left.exists()


def test_files_that_are_gone_are_said_to_be_gone():
    registry.path_of(registered()).unlink()
    with pytest.raises(CheckpointError, match="files of model tiny are gone"):
        open_named("tiny")


def test_what_a_killed_process_left_is_cleared_and_what_is_in_use_stays():
    kept = registered()
    at_work = registry.new_folder("other")
    left = registry.models_folder() / "data" / "tiny@0123abcd"
    left.mkdir()
    (left / "m.safetensors").write_bytes(b"half")
    part = registry.models_folder() / ".tiny.json.0123abcd.part"
    part.write_text("{")
    registry.clear_leftovers()
    assert registry.path_of(kept).exists() and at_work.exists() and not left.exists() and not part.exists()


def test_two_processes_that_register_one_name_leave_one_whole_model(home):
    program = (
        "import sys, models, test_registry as t\nfor n in range(12): t.registered(seed=int(sys.argv[1]))\n"
    )
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(place) for place in Path(__file__).resolve().parents[:2]),
    }
    running = [
        subprocess.Popen([sys.executable, "-c", program, str(seed)], env=env, stderr=subprocess.PIPE)
        for seed in (1, 2)
    ]
    seen = 0
    while any(process.poll() is None for process in running):
        if "tiny" in registry.names():
            assert registry.record("tiny").name == "tiny"
            seen += 1
    for process in running:
        assert process.communicate()[1] == b"" and process.returncode == 0
    assert seen and open_named("tiny").tensors
    registry.clear_leftovers()
    assert len(list((registry.models_folder() / "data").iterdir())) == 1


def test_a_folders_name_is_not_given_again():
    """Another process that replaced this one's model may still be about to delete the folder."""
    first = registry.new_folder("tiny")
    first.rmdir()
    assert registry.new_folder("tiny") != first


def test_a_name_works_in_every_verb(rwkv):
    folder = registry.new_folder("small")
    for file in ("model.safetensors", "tokenizer.json"):
        shutil.copy(embedded().parent / file, folder)
    path = folder / "model.safetensors"
    registry.register(replace(RECORD, name="small", path=str(path.relative_to(registry.models_folder()))))
    assert (
        rwkv("generate", "Once upon a", "-m", "small", "--temperature", "0", "--max-tokens", "1")
        == "Once upon a time\n"
    )
    told = "Tom has the ball. Who has the ball?\n"
    assert "Tom has the ball." in rwkv("chat", "-m", "small", "--temperature", "0", text=told)
    assert json.loads(rwkv("info", "small", "--json"))["path"] == str(path)
    assert rwkv("tokenize", "Hello", "-m", "small") == rwkv("tokenize", "Hello")
    assert "packed.safetensors" in rwkv("quantize", "small", "packed.safetensors")
    assert "did you mean small?" in rwkv("generate", "x", "-m", "smal", status=2)
    listed = rwkv("models").splitlines()[1].split()
    assert listed[:5] == ["small", "RWKV-7", "10", "bytes", "F32"] and listed[-2:] == ["yes", str(path)]
    told = json.loads(rwkv("models", "--json"))[0]
    assert told["source"] == RECORD.source and told["fits"] is True and told["memory"] > 100_000_000
    assert rwkv("models", "remove", "small") == "removed small\n" and "no models yet" in rwkv("models")


def test_a_wrong_name_brings_the_nearest_one_or_how_to_get_it():
    registered("tiny")
    for wrong, hint in (
        ("tinny", "did you mean tiny?"),
        ("g1d-0.1b", "`rwkv pull g1d-0.1b` gets it"),
        ("G1d-0.1", "`rwkv pull g1d-0.1b` gets g1d-0.1b"),
        ("else", "there are tiny"),
    ):
        with pytest.raises(CheckpointError, match=hint):
            open_named(wrong)
    with pytest.raises(OptionError, match=r"did you mean g1k-1.5b\?"):
        pull("g1k-1.5")
    with pytest.raises(OptionError, match="give another"):
        registry.check_name("embedded")


def test_a_default_model_is_used_where_none_is_named(rwkv, home, monkeypatch):
    path, own = registry.path_of(registered()), str(embedded())
    shutil.copy(own, path)
    shutil.copy(embedded().parent / "tokenizer.json", path.parent)
    monkeypatch.delenv("RWKV_MODEL", raising=False)
    assert rwkv("models", "default") == "embedded\n"
    assert rwkv("models", "default", "tiny") == rwkv("models", "default") == "tiny\n"
    assert json.loads(rwkv("info", "--json"))["path"] == str(path)
    assert rwkv("models").splitlines()[1].startswith("*")
    assert json.loads(rwkv("info", "embedded", "--json"))["path"] == own
    monkeypatch.setenv("RWKV_MODEL", own)
    assert json.loads(rwkv("info", "--json"))["path"] == own
    monkeypatch.delenv("RWKV_MODEL")
    assert "did you mean tiny?" in rwkv("models", "default", "tyny", status=2)
    assert rwkv("models", "default") == "tiny\n"
    rwkv("models", "rm", "tiny")
    assert rwkv("models", "default") == "embedded\n"
    models.write(home / "work" / "m.safetensors", models.random_model("7"))
    assert rwkv("models", "default", "m.safetensors") == f"{home / 'work' / 'm.safetensors'}\n"
    assert rwkv("models", "default", "embedded") == "embedded\n"
    assert json.loads(rwkv("info", "--json"))["path"] == own


def test_caches_are_measured_and_cleared_only_when_that_is_confirmed(rwkv, home, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    assert {one["bytes"] for one in json.loads(rwkv("cache", "--json"))} == {0}
    folder = home / "cache" / "rwkv_engine"
    (home / "mine").write_text("mine")
    for name in ("compiled/a/x.nbi", "prefixes/y", "prefixes/owner/z", "digests/d", "q-int8-1.safetensors"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"12345")
    (folder / "prefixes" / "link").symlink_to(home / "mine")
    found = {one["name"]: one["files"] for one in json.loads(rwkv("cache", "ls", "--json"))}
    assert found == {"compiled": 1, "quantized": 2, "prefixes": 3}
    assert "give --yes" in rwkv("cache", "clear", status=2) and "one of" in rwkv("cache", "rm", "x", status=2)
    assert rwkv("cache", "clear", "quantized", "--yes") == "deleted 10 bytes\n"
    assert not list(folder.glob("*.safetensors")) and (folder / "prefixes" / "y").exists()
    rwkv("cache", "clear", "-y")
    assert {one["files"] for one in json.loads(rwkv("cache", "--json"))} == {0}
    assert (home / "mine").read_text() == "mine"


def test_the_models_verb_tells_of_a_damaged_record_and_lists_the_others(rwkv):
    registered("good")
    (registry.models_folder() / "bad.json").write_text("{")
    listed = rwkv("models")
    assert "good" in listed and "bad" not in listed
    assert "no model is called 'none'" in rwkv("models", "remove", "none", status=2)


def test_a_registered_model_is_not_quantized_onto_itself():
    record = registered()
    with pytest.raises(EngineError, match="same file"):
        quantize("tiny", registry.path_of(record))
