"""The folder of conversations: used by many threads, and what is said when it cannot be used."""

# ruff: noqa: F811  # fixtures that are imported
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from test_sessions import ask, begin, store  # noqa: F401

from rwkv_engine import SessionError
from rwkv_engine.chat import Store


def test_a_store_is_used_from_another_thread(store, embedded):
    session, told = begin(store, embedded, "cats"), []

    def work():
        try:
            ask(session, 2)
            told.extend(info.turns for info in store.infos())
        except Exception as error:  # told to the thread that made it
            told.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert told == [2] and store.info("cats").turns == 2


def test_many_threads_use_one_store_and_lose_nothing(store):
    def work(number):
        for n in range(20):
            assert store.add(f"{number}-{n}", "f", {}, []) is not None
            assert store.find(f"{number}-{n}") is not None
            if n % 3 == 0:
                store.delete(f"{number}-{n}")

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert len(store.infos()) == 6 * 13


def test_what_is_wrong_with_a_store_is_what_is_said(store, tmp_path):
    store.add("x", "f", {}, [])
    path = store.folder / "sessions.sqlite"
    for column, value in (("settings", "'{'"), ("settings", "'5'"), ("settings", r"CAST(X'FF0A0A' AS TEXT)")):
        with sqlite3.connect(path) as file:
            file.execute(f"UPDATE sessions SET {column} = {value}")
        with pytest.raises(SessionError, match="damaged") as refused:
            store.infos()
        assert "\n" not in str(refused.value)
    store.close()
    with pytest.raises(SessionError, match="was closed; open it again"):
        store.infos()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "sessions.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(SessionError, match="damaged; move it away"):
        Store(tmp_path / "bad")
    (tmp_path / "odd" / "sessions.sqlite").mkdir(parents=True)
    with pytest.raises(SessionError, match="may be written to"):
        Store(tmp_path / "odd")


def test_another_program_that_writes_for_long_is_told_as_such(store, monkeypatch):
    store._database._connection.execute("PRAGMA busy_timeout = 10")
    with sqlite3.connect(store.folder / "sessions.sqlite", isolation_level=None) as file:
        file.execute("BEGIN IMMEDIATE")
        with pytest.raises(SessionError, match="another program has been writing"):
            store.add("x", "f", {}, [])
        file.execute("ROLLBACK")
