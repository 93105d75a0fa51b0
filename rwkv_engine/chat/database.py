"""The texts of kept conversations: an SQLite file with a row for each session and a row for each turn.

A change is one transaction, so a process that is killed leaves either the old rows or the new ones. Each
session counts its revisions: who writes says which one he has seen, and learns if another process has moved
the session on.
"""

import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rwkv_engine.chat.answer import Turn
from rwkv_engine.errors import SessionError, brief
from rwkv_engine.system.folders import private_file
from rwkv_engine.system.json_text import parsed
from rwkv_engine.text.chat import Think

VERSION = 1
#: seconds to wait for another process that is writing
PATIENCE = 30
_SCHEMA = """
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, created REAL NOT NULL, changed REAL NOT NULL,
    revision INTEGER NOT NULL, fingerprint TEXT NOT NULL, settings TEXT NOT NULL);
CREATE TABLE turns (
    session INTEGER NOT NULL REFERENCES sessions (id) ON DELETE CASCADE, number INTEGER NOT NULL, uid TEXT NOT NULL,
    user TEXT NOT NULL, answer TEXT NOT NULL, thinking TEXT NOT NULL, system TEXT, think TEXT NOT NULL, stop TEXT,
    tries INTEGER NOT NULL, tokens BLOB NOT NULL, PRIMARY KEY (session, number)) WITHOUT ROWID;
CREATE INDEX turns_by_uid ON turns (uid);
"""


@dataclass(frozen=True, slots=True)
class Info:
    """A session in a list.

    id, revision  for `Database`.    created, changed  seconds since 1970.    turns, tokens  how many.
    fingerprint   of the model's checkpoint.    settings  of the program that keeps it: JSON values.
    """

    id: int
    name: str
    created: float
    changed: float
    revision: int
    fingerprint: str
    settings: Mapping[str, Any]
    turns: int
    tokens: int


class Database:
    """The rows.

    Raises SessionError where the file is damaged, cannot be written, or belongs to a later version.

    Many threads may use one: each call has the connection for itself.
    """

    __slots__ = ("_connection", "_lock", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        with self._told():
            private_file(path)
            self._connection = sqlite3.connect(
                path, timeout=PATIENCE, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA foreign_keys = ON")
            version = self._version()
            if version == 0:
                self._create()
                version = self._version()
        if version != VERSION:
            self.close()
            raise SessionError(
                f"{path}: sessions of version {version}, this engine reads {VERSION}; use the engine that wrote them"
            )

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._connection.close()

    def infos(self) -> list[Info]:
        """All sessions, the last changed first."""
        return list(self._select("ORDER BY changed DESC, id DESC"))

    def last(self) -> Info | None:
        """The session that was changed last."""
        return next(self._select("ORDER BY changed DESC, id DESC LIMIT 1"), None)

    def find(self, name: str) -> Info | None:
        """The session called `name`."""
        return next(self._select("WHERE name = ?", name), None)

    def turns(self, session: int) -> list[Turn]:
        """The turns of a session, in order."""
        with self._told():
            rows = self._connection.execute(
                "SELECT user, answer, thinking, system, think, tokens, stop, uid, tries FROM turns WHERE session = ? ORDER BY number",
                (session,),
            ).fetchall()
        with self._understood():
            return [_turn(*row) for row in rows]

    def add(
        self, name: str, fingerprint: str, settings: Mapping[str, Any], turns: Sequence[Turn]
    ) -> int | None:
        """A new session; its id, or None if the name is taken."""
        now = time.time()
        with self._change():
            try:
                row = self._connection.execute(
                    "INSERT INTO sessions (name, created, changed, revision, fingerprint, settings) VALUES (?, ?, ?, 1, ?, ?)",
                    (name, now, now, fingerprint, json.dumps(settings)),
                )
            except sqlite3.IntegrityError:
                return None
            self._insert(row.lastrowid or 0, 0, turns)
            return row.lastrowid

    def move_on(
        self,
        session: int,
        revision: int,
        fingerprint: str,
        settings: Mapping[str, Any],
        start: int,
        turns: Sequence[Turn],
    ) -> bool:
        """Replace the turns from number `start` on; False, and no change, if the session is no longer at
        `revision`.
        """
        with self._change():
            row = self._connection.execute(
                "UPDATE sessions SET changed = ?, revision = revision + 1, fingerprint = ?, settings = ? WHERE id = ? AND revision = ?",
                (time.time(), fingerprint, json.dumps(settings), session, revision),
            )
            if row.rowcount != 1:
                return False
            self._connection.execute("DELETE FROM turns WHERE session = ? AND number >= ?", (session, start))
            self._insert(session, start, turns)
            return True

    def delete(self, session: int) -> None:
        """Delete a session and its turns."""
        with self._change():
            self._connection.execute("DELETE FROM sessions WHERE id = ?", (session,))

    def places(self, uids: Sequence[str]) -> dict[str, list[tuple[int, int]]]:
        """For each of these turns, where it occurs: (its number, the number of turns of that session)."""
        found: dict[str, list[tuple[int, int]]] = {uid: [] for uid in uids}
        with self._told():
            for uid in uids:
                rows = self._connection.execute(
                    "SELECT number, (SELECT COUNT(*) FROM turns AS all_of WHERE all_of.session = one.session) "
                    "FROM turns AS one WHERE uid = ?",
                    (uid,),
                )
                found[uid] = rows.fetchall()
        return found

    def uids(self) -> set[str]:
        """The names of all turns."""
        with self._told():
            return {uid for (uid,) in self._connection.execute("SELECT uid FROM turns")}

    def _insert(self, session: int, start: int, turns: Sequence[Turn]) -> None:
        self._connection.executemany(
            "INSERT INTO turns (session, number, uid, user, answer, thinking, system, think, stop, tries, tokens) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    session,
                    number,
                    t.uid,
                    *map(_storable, (t.user, t.answer, t.thinking)),
                    t.system and _storable(t.system),
                )
                + (t.think, t.stop, t.tries, np.array(t.tokens, "<u4").tobytes())
                for number, t in enumerate(turns, start)
            ],
        )

    def _select(self, rest: str, *values: object) -> Iterator[Info]:
        with self._told():
            rows = self._connection.execute(
                "SELECT id, name, created, changed, revision, fingerprint, settings, "
                "(SELECT COUNT(*) FROM turns WHERE session = sessions.id), "
                "(SELECT COALESCE(SUM(LENGTH(tokens)), 0) / 4 FROM turns WHERE session = sessions.id) "
                f"FROM sessions {rest}",
                values,
            ).fetchall()
        with self._understood():
            infos = [
                Info(
                    number,
                    name,
                    created,
                    changed,
                    revision,
                    fingerprint,
                    dict(parsed(settings)),
                    turns,
                    tokens,
                )
                for number, name, created, changed, revision, fingerprint, settings, turns, tokens in rows
            ]
        yield from infos

    def _version(self) -> int:
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])

    def _create(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        if self._version() == 0:  # no other process was quicker
            for statement in _SCHEMA.split(";"):
                self._connection.execute(statement)
            self._connection.execute(f"PRAGMA user_version = {VERSION}")
        self._connection.execute("COMMIT")

    @contextmanager
    def _change(self) -> Iterator[None]:
        """One transaction: all of it or nothing."""
        with self._told():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    @contextmanager
    def _understood(self) -> Iterator[None]:
        """Rows that this engine cannot have written, as SessionError."""
        try:
            yield
        except (ValueError, TypeError, RecursionError):
            raise SessionError(
                f"{self.path} is damaged: a row has no proper values; move it away and start anew"
            ) from None

    @contextmanager
    def _told(self) -> Iterator[None]:
        """One thread at a time; what SQLite and the system refuse, as SessionError."""
        with self._lock:
            try:
                yield
            except (
                sqlite3.Error,
                OSError,
                UnicodeDecodeError,
            ) as error:  # the last: a damaged name in its message
                raise SessionError(f"{self.path}: {brief(error)}; {_advice(error)}") from None


def _advice(error: Exception) -> str:
    """What to do about an error of the database."""
    text = str(error)
    if isinstance(error, sqlite3.ProgrammingError):
        return "the store was closed; open it again"
    if "locked" in text:
        return f"another program has been writing for {PATIENCE} seconds; try again when it is done"
    if isinstance(error, OSError) or any(
        word in text for word in ("full", "readonly", "disk I/O", "unable to open")
    ):
        return "make room, and see that the file and its folder may be written to"
    return "it is damaged; move it away and start anew"


def _turn(
    user: str, answer: str, thinking: str, system: str | None, think: Think, tokens: bytes, *rest: Any
) -> Turn:
    return Turn(user, answer, thinking, system, think, tuple(np.frombuffer(tokens, "<u4").tolist()), *rest)


def _storable(text: str) -> str:
    """The text as UTF-8 can hold it."""
    return text.encode("utf-8", "replace").decode("utf-8")
