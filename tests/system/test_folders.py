"""Where the engine keeps its files, and that nobody else may read what people say."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import platformdirs
import pytest

from rwkv_engine.chat import Store, data_folder
from rwkv_engine.errors import OptionError, SessionError
from rwkv_engine.library import registry
from rwkv_engine.system import folders
from rwkv_engine.writing.prefix_cache import PrefixCache


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    before = os.umask(0o022)
    yield tmp_path
    os.umask(before)


def modes(folder):
    return {
        str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode)
        for path in (folder, *folder.rglob("*"))
        if "models" not in path.parts
    }


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other folders")
def test_without_settings_the_folders_are_those_that_linux_has(home):
    assert folders.cache_folder() == home / ".cache" / "rwkv_engine"
    assert folders.data_folder() == data_folder() == home / ".local" / "share" / "rwkv_engine"
    assert registry.models_folder() == data_folder() / "models"


@pytest.mark.parametrize("given", ["relative", "./here", ""])
def test_a_relative_folder_is_ignored_by_all_alike(home, monkeypatch, given):
    wanted = folders.cache_folder(), folders.data_folder()
    monkeypatch.setenv("XDG_DATA_HOME", given)
    monkeypatch.setenv("XDG_CACHE_HOME", given)
    assert (folders.cache_folder(), folders.data_folder()) == wanted
    assert data_folder() == registry.models_folder().parent == wanted[1]
    assert PrefixCache().folder == wanted[0] / "prefixes"


def test_an_absolute_folder_is_taken_by_all(home, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "d"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "c"))
    assert data_folder() == registry.models_folder().parent == home / "d" / "rwkv_engine"
    assert folders.cache_folder() == PrefixCache().folder.parent == home / "c" / "rwkv_engine"


def test_a_user_without_a_home_is_told_so(monkeypatch):
    for name in ("user_cache_path", "user_data_path"):
        monkeypatch.setattr(platformdirs, name, lambda *_, **__: Path("~/x"))
    with pytest.raises(OSError, match="no home folder"):
        folders.cache_folder()
    with pytest.raises(OptionError, match="no home folder"):
        registry.models_folder()
    with pytest.raises(SessionError, match="no home folder"):
        data_folder()


@pytest.mark.parametrize("before", ["nothing", "pull", "an older engine"])
def test_what_people_say_is_private_whatever_ran_first(home, embedded, before):
    folder = data_folder()
    if before == "pull":
        registry.new_folder("m")
    if before == "an older engine":
        (folder / "states").mkdir(parents=True)
        for name in ("sessions.sqlite", "history"):
            (folder / name).touch()
    from rwkv_engine_cli.chat.terminal import _history

    from rwkv_engine.chat import Session
    from rwkv_engine.chat.conversation import Conversation
    from rwkv_engine.text.chat import template_named

    store = Store()
    session = Session(store, Conversation(embedded, template_named("world")), "x")
    list(session.conversation.say("My secret is 42", None, 3))
    session.keep({})
    _history(folder / "history").append_string("My secret is 42")
    found = modes(folder)
    store.close()
    assert {"history", "sessions.sqlite", "states"} < found.keys() and len(found) >= 5
    assert {name: mode for name, mode in found.items() if mode & 0o077} == {}


def test_a_folder_that_was_chosen_by_hand_stays_open_and_what_is_in_it_does_not(home):
    (home / "mine").mkdir()
    Store(home / "mine").close()
    assert modes(home / "mine") == {".": 0o755, "states": 0o700, "sessions.sqlite": 0o600}


def test_cached_states_are_private(home, embedded):
    cache = PrefixCache(threshold=64)
    cache.folder.mkdir(parents=True)
    list(embedded.generate([11] * 130, max_tokens=1, prefix_cache=cache))
    found = modes(cache.folder)
    assert len(found) > 1 and not any(mode & 0o077 for mode in found.values())


def test_starting_where_folders_are_set_imports_no_platformdirs(home):
    program = "import sys; from rwkv_engine.system import folders; folders.cache_folder(); print('platformdirs' in sys.modules)"
    for environment, wanted in (({"XDG_CACHE_HOME": str(home)}, "False"), ({}, "True")):
        done = subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, **environment}, capture_output=True, text=True
        )
        assert done.stdout.strip() == wanted, done.stderr


def test_nothing_else_asks_for_the_users_folders():
    package = Path(folders.__file__).parents[1]
    asking = [
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if any(word in path.read_text() for word in ('environ.get("XDG', "Path.home()", 'environ["XDG'))
    ]
    assert asking == []
