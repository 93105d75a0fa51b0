"""Kept conversations: what is on disk after whatever happens, and that it goes on where it was."""

import fcntl
import json
import os
import random
import select
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest

from rwkv_engine import Sampling, SessionError
from rwkv_engine.chat import Session, Store, as_json, as_markdown, data_folder
from rwkv_engine.chat.conversation import Conversation
from rwkv_engine.chat.history import worth_keeping
from rwkv_engine.text.chat import template_named

GREEDY = Sampling(temperature=0)
WORLD = template_named("world")
#: processes killed in the middle of a conversation; RWKV_ENGINE_KILLS asks for more
KILLS = int(os.environ.get("RWKV_ENGINE_KILLS", "5"))


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "data")
    yield store
    store.close()


def begin(store, model, name=None):
    return Session(store, Conversation(model, WORLD), name)


def say(session, text, tokens=8, sampling=GREEDY):
    list(session.conversation.say(text, sampling, tokens))
    return session.keep({"model": None})


def ask(session, count, start=0):
    for number in range(start, start + count):
        say(session, f"Tom has {number} cats. How many cats does Tom have?", 3)


def probe(conversation):
    return conversation.model.feed([11], conversation.state()).tobytes()


def again(store, model, name):
    return Session.open(store, store.info(name), model, WORLD)


def test_a_session_opened_again_is_the_same_to_the_bit_and_so_is_undo(store, embedded):
    session = begin(store, embedded, "cats")
    seen = []
    for number in range(22):
        ask(session, 1, number)
        seen.append(probe(session.conversation))
    other = again(store, embedded, "cats")
    assert other.conversation.turns == session.conversation.turns
    assert probe(other.conversation) == seen[-1]
    for undone in range(1, 21):
        other.conversation.undo()
        assert probe(other.conversation) == seen[21 - undone]
    other.keep({})
    assert len(again(store, embedded, "cats").conversation.turns) == 2
    assert probe(again(store, embedded, "cats").conversation) == seen[1]


def test_opening_a_session_reads_nothing_again(store, embedded, monkeypatch):
    session = begin(store, embedded, "cats")
    ask(session, 12)
    fed = []
    monkeypatch.setattr(type(embedded), "feed", lambda *arguments: fed.append(arguments))
    assert again(store, embedded, "cats").conversation.state() == session.conversation.state()
    assert not fed


def test_a_session_is_named_after_its_first_words_and_an_empty_one_is_not_kept(store, embedded):
    session = begin(store, embedded)
    assert session.keep({}) and store.infos() == []
    say(session, "Who are you, model?")
    assert session.name == "who-are-you-model"
    twin = begin(store, embedded)
    say(twin, "Who are you, model?")
    assert twin.name == "who-are-you-model-2"
    assert store.last().name == twin.name
    say(session, "And who am I?")
    assert store.last().name == session.name


def test_old_states_are_thinned_out_on_disk(store, embedded):
    session = begin(store, embedded, "long")
    ask(session, 70)
    kept = [
        number
        for number, turn in enumerate(session.conversation.turns)
        if store.state_file(turn.uid).exists()
    ]
    assert kept == [number for number in range(70) if worth_keeping(number, 70)] and len(kept) < 40
    assert len(session.conversation.kept()) <= 4
    session.conversation.undo(45)  # to a turn without a state
    session.conversation.state()
    assert session.conversation.tokens == session.conversation.state().position


def test_forks_share_states_and_neither_can_take_the_others_away(store, embedded):
    session = begin(store, embedded, "one")
    ask(session, 3)
    files = set((store.folder / "states").iterdir())
    twin = session.fork("two", {})
    assert set((store.folder / "states").iterdir()) == files
    before = probe(session.conversation)
    twin.conversation.undo(2)
    ask(twin, 1, 50)
    assert probe(again(store, embedded, "one").conversation) == before
    store.delete("two")
    assert set((store.folder / "states").iterdir()) == files
    store.delete("one")
    assert not list((store.folder / "states").iterdir()) and store.infos() == []
    with pytest.raises(SessionError, match="already"):
        ask(session, 1), session.fork(session.name, {})


def test_two_who_go_on_with_one_session_both_keep_all_they_said(store, embedded, tmp_path):
    session = begin(store, embedded, "one")
    ask(session, 2)
    second = Store(tmp_path / "data")
    other = again(second, embedded, "one")
    assert say(session, "Where is Mia?")
    assert not say(other, "Where is Ben?")
    assert other.name == "one-2" and say(other, "Where is Leo?")
    for name, last in (("one", ["Where is Mia?"]), ("one-2", ["Where is Ben?", "Where is Leo?"])):
        opened = again(store, embedded, name).conversation
        assert [turn.user for turn in opened.turns][2:] == last
        assert opened.state().position == opened.tokens
    assert say(session, "Where is Tom?")
    second.close()


def test_a_session_of_another_model_is_refused_or_read_anew(store, embedded, load):
    ask(begin(store, embedded, "one"), 2)
    other, _ = load("7")
    with pytest.raises(SessionError, match="another model.*--read-again"):
        again(store, other, "one")
    rows = store.turns(store.info("one"))
    session = begin(store, embedded, "two")
    ask(session, 2)
    with sqlite3.connect(store.folder / "sessions.sqlite") as file:
        file.execute("UPDATE sessions SET fingerprint = 'other' WHERE name = 'two'")
    file.close()
    opened = Session.open(store, store.info("two"), embedded, WORLD, read_again=True)
    assert [turn.answer for turn in opened.conversation.turns] == [turn.answer for turn in rows]
    assert opened.conversation.state().position == opened.conversation.tokens
    opened.keep({})
    assert again(store, embedded, "two").conversation.turns == opened.conversation.turns


def test_a_state_file_that_is_damaged_or_gone_costs_only_time(store, embedded):
    session = begin(store, embedded, "one")
    ask(session, 3)
    expected = session.conversation.state()
    last, before = (store.state_file(turn.uid) for turn in reversed(session.conversation.turns[1:]))
    for harm in (
        lambda: last.write_bytes(last.read_bytes()[:-7]),
        lambda: (last.unlink(), before.write_text("no")),
    ):
        harm()
        state = again(store, embedded, "one").conversation.state()
        np.testing.assert_allclose(state.block, expected.block, rtol=1e-3, atol=1e-3)
        assert state.position == expected.position


def test_what_killed_processes_leave_behind_is_collected_and_nothing_else(store, embedded):
    ask(begin(store, embedded, "one"), 2)
    states = store.folder / "states"
    files = set(states.iterdir())
    (states / "0123.safetensors").write_text("without a row")
    (states / ".4567.safetensors.01234567.part").write_text("half")
    with open(states / ".89ab.safetensors.01234567.part", "wb") as written:
        fcntl.flock(written, fcntl.LOCK_EX)
        assert store.collect() == 2
        assert {p.name for p in set(states.iterdir()) - files} == {".89ab.safetensors.01234567.part"}


@pytest.mark.parametrize("harm", ["text", "version", "file for a folder"])
def test_a_folder_that_cannot_be_used_is_refused_in_one_sentence(tmp_path, harm):
    if harm == "file for a folder":
        (tmp_path / "data").write_text("")
    else:
        Store(tmp_path / "data").close()
        path = tmp_path / "data" / "sessions.sqlite"
        if harm == "text":
            path.write_text("This is no database." * 100)
        else:
            with sqlite3.connect(path) as file:
                file.execute("PRAGMA user_version = 9")
            file.close()
    with pytest.raises(SessionError, match="data"):
        Store(tmp_path / "data")


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 81, "\x1b[2J"])
def test_names_that_would_spoil_a_list_are_refused(store, embedded, name):
    with pytest.raises(SessionError, match="session name"):
        begin(store, embedded, name)


def test_a_missing_session_is_told_with_the_nearest(store, embedded):
    ask(begin(store, embedded, "holidays"), 1)
    with pytest.raises(SessionError, match="did you mean 'holidays'"):
        store.info("holiday")


def test_exports_hold_what_was_said(store, embedded):
    session = begin(store, embedded, "one")
    session.conversation.system = "Be kind."
    say(session, "Tom has the ball. Who has the ball?")
    info, turns = store.info("one"), store.turns(store.info("one"))
    record = json.loads(as_json(info, turns))
    assert [m["role"] for m in record["messages"]] == ["system", "user", "assistant"]
    assert record["messages"][2]["content"] == turns[0].answer != ""
    text = as_markdown(info, turns)
    assert (
        text.index("# one")
        < text.index("Be kind.")
        < text.index("Who has the ball?")
        < text.rindex(turns[0].answer)
    )


def test_listing_conversations_imports_no_model():
    program = "import sys, rwkv_engine.chat; assert 'numba' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0


def test_the_data_folder_is_where_xdg_says(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert data_folder() == tmp_path / "rwkv_engine"
    for unset in ("", "relative"):
        monkeypatch.setenv("XDG_DATA_HOME", unset)
        monkeypatch.setenv("HOME", str(tmp_path))
        assert data_folder() == tmp_path / ".local" / "share" / "rwkv_engine"
    Store(tmp_path / "private").close()
    assert (tmp_path / "private").stat().st_mode & 0o077 == 0


def test_kill_9_at_any_moment_loses_at_most_the_turn_under_way(tmp_path, embedded):
    """One conversation, its process killed again and again at random moments, and gone on with each time."""
    rng, heard = random.Random(3), 0
    environment = {**os.environ, "XDG_DATA_HOME": str(tmp_path)}
    for number in range(KILLS):
        command = [
            sys.executable,
            "-m",
            "rwkv_engine_cli.app",
            "chat",
            "--lines",
            "--session",
            "kill",
            "--max-tokens",
            "8",
            "--temperature",
            "0",
        ]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        child.stdin.write(b"Tom has the ball. Who has the ball?\n" * 400)
        child.stdin.flush()
        if number % 5 != 4:
            select.select(
                [child.stdout], [], [], 60
            )  # until the first answer begins; else the moment may be before it
        time.sleep(rng.random() ** 2)
        child.send_signal(signal.SIGKILL)
        answers = child.stdout.read().count(b"\n")
        child.stdin.close(), child.stdout.close(), child.wait()
        store = Store(tmp_path / "rwkv_engine")
        conversation = again(store, embedded, "kill").conversation if store.find("kill") else None
        turns = conversation.turns if conversation else []
        assert len(turns) - heard in (answers, max(answers - 1, 0)), "more than the turn under way is lost"
        heard = len(turns)
        assert all(turn.user == "Tom has the ball. Who has the ball?" and turn.tokens for turn in turns)
        if conversation:
            assert conversation.state().position == conversation.tokens
        store.close()
    assert heard > 0
