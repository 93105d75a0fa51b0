"""`Keeper`: states that clients come back to, by owner and id: in memory as far as there is room, and in a
folder.
"""

import contextlib
import json
import re
import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from rwkv_engine.errors import StateError
from rwkv_engine.model import Model
from rwkv_engine.serve.problems import Problem
from rwkv_engine.state import State
from rwkv_engine.system.files import write_whole
from rwkv_engine.system.folders import private_folder
from rwkv_engine.system.json_text import parsed_file

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class Kept:
    """A place in a conversation to go on from.

    state  never changed: fork() it.    rest   ids that are to be read into it first.
    model  the name of its model.       about  what else is to be known of it, as JSON can say it.
    """

    state: State
    rest: tuple[int, ...]
    model: str
    about: dict[str, Any] = field(default_factory=dict)

    def notes(self) -> dict[str, Any]:
        """What stands beside the state's bytes."""
        return {"model": self.model, "rest": list(self.rest), **self.about}


class Elsewhere(Protocol):
    """Where several servers keep their states together. What it says of a state holds."""

    def put(self, owner: str, id: str, data: bytes, notes: dict[str, Any]) -> None: ...
    def get(self, owner: str, id: str) -> bytes | None: ...
    def notes(self, owner: str, id: str) -> dict[str, Any] | None: ...
    def ids(self, owner: str) -> list[str]: ...
    def delete(self, owner: str, id: str) -> None: ...


class Keeper:
    """Kept states. Many threads may use it. An id of somebody else's is an unknown id.

    folder  None: in memory only.    memory, disk  bytes that may be kept there; what was not used for the
            longest time goes.
    elsewhere  a place that other servers use too.
    """

    __slots__ = ("_disk", "_elsewhere", "_folder", "_lock", "_memory", "_states", "nbytes")

    def __init__(
        self, folder: Path | None, memory: int, disk: int, elsewhere: Elsewhere | None = None
    ) -> None:
        self._folder, self._memory, self._disk, self._elsewhere = folder, memory, disk, elsewhere
        self._states: OrderedDict[tuple[str, str], Kept] = OrderedDict()
        self._lock = threading.Lock()
        self.nbytes = 0

    def put(self, owner: str, id: str, kept: Kept, disk: bool = True) -> None:
        """Keep a state under an id; on disk it is when this returns.

        A disk that cannot be written to is no error.
        """
        checked_id(id)
        if self._elsewhere is not None:
            kept = replace(kept, about={**kept.about, "version": secrets.token_hex(8)})
            self._elsewhere.put(owner, id, kept.state.to_bytes(), kept.notes())
        self._remember((owner, id), kept)
        if disk and self._folder is not None:
            with contextlib.suppress(OSError):
                home = self._home(owner)
                kept.state.save(home / f"{id}.safetensors", sync=False, private=True)
                notes = {"created": int(time.time()), **kept.notes()}
                write_whole(home / f"{id}.json", [json.dumps(notes).encode()], sync=False, private=True)
                self._trim(home)

    def get(self, owner: str, id: str, model: Model, name: str) -> Kept:
        """The state under an id, for `model`. Raises Problem for none, and for one of another model."""
        key = owner, checked_id(id)
        if self._elsewhere is not None:
            return self._moved(self._elsewhere, key, model, name)
        with self._lock:
            found = self._states.get(key)
            if found is not None:
                self._states.move_to_end(key)
        if found is None:
            notes = self.notes(owner, id)
            path = self._home(owner) / f"{id}.safetensors"
            try:
                state = model.load_state(path)
            except StateError as error:
                raise Problem(409, f"State '{id}': {_without(path, error)}", code="wrong_state") from None
            kept = _kept(state, notes, name)
            self._remember(key, kept)
            return kept
        return _checked(found, id, model, name)

    def _moved(self, elsewhere: Elsewhere, key: tuple[str, str], model: Model, name: str) -> Kept:
        """The state under a key, which other servers may have changed: it is fetched where it is not here."""
        notes = self.notes(*key)
        with self._lock:
            found = self._states.get(key)
        if found is None or found.about.get("version") != notes.get("version"):
            data = elsewhere.get(*key)
            if data is None:
                raise Problem(404, f"There is no '{key[1]}'.", param="id", code="not_found")
            try:
                found = _kept(State.from_bytes(data, model), notes, name)
            except StateError as error:
                raise Problem(409, f"State '{key[1]}': {error}", code="wrong_state") from None
            self._remember(key, found)
        return _checked(found, key[1], model, name)

    def _remember(self, key: tuple[str, str], kept: Kept) -> None:
        """Keep it in memory, and let go of what was not used for the longest time."""
        with self._lock:
            self._discard(key)
            self._states[key] = kept
            self.nbytes += kept.state.nbytes
            while self.nbytes > self._memory and len(self._states) > 1:
                self._discard(next(iter(self._states)))

    def notes(self, owner: str, id: str) -> dict[str, Any]:
        """What is known of a state. Raises Problem for an unknown id."""
        checked_id(id)
        if self._elsewhere is not None:
            there = self._elsewhere.notes(owner, id)
            if there is None:
                raise Problem(404, f"There is no '{id}'.", param="id", code="not_found")
            return there
        with self._lock:
            found = self._states.get((owner, id))
        if found is not None:
            return found.notes()
        if self._folder is not None:
            with contextlib.suppress(OSError, ValueError):
                notes = parsed_file(self._home(owner) / f"{id}.json")
                if isinstance(notes, dict) and (self._home(owner) / f"{id}.safetensors").is_file():
                    return notes
        raise Problem(404, f"There is no '{id}'.", param="id", code="not_found")

    def ids(self, owner: str, prefix: str) -> list[str]:
        """The ids of an owner that begin so."""
        if self._elsewhere is not None:
            return sorted(id for id in self._elsewhere.ids(owner) if id.startswith(prefix))
        with self._lock:
            found = {id for who, id in self._states if who == owner}
        if self._folder is not None:
            found.update(path.stem for path in self._home(owner).glob("*.json"))
        return sorted(id for id in found if id.startswith(prefix))

    def delete(self, owner: str, id: str) -> None:
        """Forget a state. Raises Problem for an unknown id."""
        self.notes(owner, id)
        with self._lock:
            self._discard((owner, id))
        if self._elsewhere is not None:
            self._elsewhere.delete(owner, id)
        if self._folder is not None:
            for suffix in (".json", ".safetensors"):
                (self._home(owner) / f"{id}{suffix}").unlink(missing_ok=True)

    def _discard(self, key: tuple[str, str]) -> None:
        gone = self._states.pop(key, None)
        self.nbytes -= gone.state.nbytes if gone is not None else 0

    def _home(self, owner: str) -> Path:
        assert self._folder is not None
        return private_folder(self._folder / (owner or "local"))

    def _trim(self, home: Path) -> None:
        """Delete the oldest files of an owner until all are under the bound."""
        files = sorted((p.stat().st_mtime_ns, p.stat().st_size, p) for p in home.glob("*.safetensors"))
        left = sum(size for _, size, _ in files)
        for _, size, path in files:
            if left <= self._disk:
                return
            path.unlink(missing_ok=True)
            path.with_suffix(".json").unlink(missing_ok=True)
            left -= size


def _kept(state: State, notes: dict[str, Any], name: str) -> Kept:
    """A state and what stands beside it. `name` is the model's, where that says nothing."""
    about = {name: value for name, value in notes.items() if name not in ("model", "rest")}
    return Kept(state, tuple(notes.get("rest", ())), notes.get("model", name), about)


def _checked(found: Kept, id: str, model: Model, name: str) -> Kept:
    """The same. Raises Problem where it is another model's."""
    try:
        model.own(found.state)
    except StateError:
        sentence = f"State '{id}' belongs to the model '{found.model}', not to '{name}'."
        raise Problem(409, sentence, code="wrong_state") from None
    return found


def checked_id(id: str) -> str:
    """An id that names no path. Raises Problem."""
    if not _ID.fullmatch(id):
        raise Problem(404, "There is no state of this id.", param="id", code="not_found")
    return id


def _without(path: Path, error: StateError) -> str:
    return str(error).replace(f"{path}: ", "").replace(str(path), "the file")
