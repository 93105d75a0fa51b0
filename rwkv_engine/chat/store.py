"""`Store`: the folder of saved conversations.

`sessions.sqlite` holds what was said, `states/` a state file for each turn worth one.

A turn's row is written before its state file, so a file without a row is rubbish, and a turn without a file
only costs reading it again. Forks share the files of the turns they have in common.
"""

import difflib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rwkv_engine.chat.answer import Turn
from rwkv_engine.chat.database import Database, Info
from rwkv_engine.chat.history import worth_keeping
from rwkv_engine.errors import SessionError, StateError
from rwkv_engine.state import State
from rwkv_engine.system import folders
from rwkv_engine.system.files import expanded, remove_abandoned

_SUFFIX = ".safetensors"
_LONGEST_NAME = 80


def data_folder() -> Path:
    """Where conversations are kept: the user's data folder. Raises SessionError for a user without a home."""
    try:
        return folders.data_folder()
    except OSError:
        raise SessionError(
            "there is no home folder for conversations; set XDG_DATA_HOME, or give --no-save"
        ) from None


class Store:
    """Kept conversations, by name.

    Many processes may use one folder. Raises SessionError where it cannot be read or written.
    """

    __slots__ = ("_database", "_states", "folder")

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = data_folder() if folder is None else expanded(folder)
        self._states = self.folder / "states"
        try:  # what people say is theirs alone
            folders.private_folder(self.folder, close=folder is None)
            folders.private_folder(self._states)
        except OSError as error:
            raise SessionError(
                f"{self.folder}: conversations cannot be kept there: {error.strerror or error}"
            ) from None
        self._database = Database(self.folder / "sessions.sqlite")

    def close(self) -> None:
        """Let go of the files."""
        self._database.close()

    def infos(self) -> list[Info]:
        """All sessions, the last changed first."""
        return self._database.infos()

    def last(self) -> Info | None:
        """The session that was changed last."""
        return self._database.last()

    def find(self, name: str) -> Info | None:
        """The session called `name`, or None."""
        return self._database.find(name)

    def info(self, name: str) -> Info:
        """The session called `name`. Raises SessionError, with the nearest name, if there is none."""
        found = self._database.find(name)
        if found is None:
            near = difflib.get_close_matches(name, [info.name for info in self.infos()], 1, 0.4)
            raise SessionError(
                f"there is no session {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
            )
        return found

    def turns(self, info: Info) -> list[Turn]:
        """What was said in a session."""
        return self._database.turns(info.id)

    def add(
        self, name: str, fingerprint: str, settings: Mapping[str, Any], turns: Sequence[Turn]
    ) -> int | None:
        """A new session; its id, or None if the name is taken."""
        return self._database.add(checked_name(name), fingerprint, settings, turns)

    def move_on(
        self,
        session: int,
        revision: int,
        fingerprint: str,
        settings: Mapping[str, Any],
        start: int,
        turns: Sequence[Turn],
    ) -> bool:
        """Replace a session's turns from `start` on; False, and no change, if another process has changed it
        since `revision`.
        """
        return self._database.move_on(session, revision, fingerprint, settings, start, turns)

    def delete(self, name: str) -> None:
        """Delete a session, and the states that no other session shares.

        Raises SessionError if there is none.
        """
        info = self.info(name)
        uids = [turn.uid for turn in self.turns(info)]
        self._database.delete(info.id)
        self.thin(uids)

    def free_name(self, wish: str) -> str:
        """`wish`, or `wish-2`, `wish-3` ...: the first that no session has."""
        taken = {info.name for info in self.infos()}
        names = (wish if n == 1 else f"{wish}-{n}" for n in range(1, len(taken) + 2))
        return next(name for name in names if name not in taken)

    def state_file(self, uid: str) -> Path:
        """Where the state after a turn is, if it is kept."""
        return self._states / f"{uid}{_SUFFIX}"

    def save_states(self, states: Mapping[str, State]) -> None:
        """Write the states of these turns that have no file yet. Raises SessionError where that fails."""
        for uid, state in states.items():
            if not self.state_file(uid).exists():
                try:
                    state.save(self.state_file(uid), private=True)
                except StateError as error:
                    raise SessionError(f"{error}; the text was kept") from None

    def thin(self, uids: Iterable[str]) -> None:
        """Delete the state files of those of these turns that no session has any more, or that have become
        too old to have one.
        """
        present = [uid for uid in uids if self.state_file(uid).exists()]
        for uid, places in self._database.places(present).items():
            if not any(worth_keeping(number, count) for number, count in places):
                self.state_file(uid).unlink(missing_ok=True)

    def collect(self) -> int:
        """Delete the state files that belong to no turn, and what killed processes left half written; how
        many files.
        """
        files = {
            path.name: path for path in self._states.iterdir()
        }  # before the rows are read: a row comes before its file
        known = self._database.uids()
        gone = 0
        for name, path in files.items():
            if name.endswith(_SUFFIX) and name.removesuffix(_SUFFIX) not in known:
                path.unlink(missing_ok=True)
                gone += 1
            elif name.startswith(".") and name.endswith(".part"):
                remove_abandoned(path)
                gone += not path.exists()
        return gone

    def state_bytes(self, turns: Sequence[Turn]) -> int:
        """Bytes on disk of the states of these turns."""
        files = (self.state_file(turn.uid) for turn in turns)
        return sum(path.stat().st_size for path in files if path.exists())


def checked_name(name: str) -> str:
    """A name for a session. Raises SessionError for one that is empty, long, or has control characters."""
    if (
        not name.strip()
        or len(name) > _LONGEST_NAME
        or any(unicodedata.category(c) in ("Cc", "Cs") for c in name)
    ):
        raise SessionError(
            f"session name: got {name[:_LONGEST_NAME]!r}, want 1 to {_LONGEST_NAME} characters, no control characters"
        )
    return name


def name_for(text: str) -> str:
    """A short name for a conversation that begins with `text`: its first words."""
    words = re.findall(r"\w+", text.lower())[:4]
    return "-".join(words)[:30].strip("-") or "chat"
