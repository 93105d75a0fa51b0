"""`Keeper`: states that clients come back to, by owner and id: in memory as far as there is room, and in a
folder.
"""

import contextlib
import json
import re
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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


class Keeper:
    """Kept states. Many threads may use it. An id of somebody else's is an unknown id.

    folder  None: in memory only.    memory, disk  bytes that may be kept there; what was not used for the
            longest time goes.
    """

    __slots__ = ("_disk", "_folder", "_lock", "_memory", "_states", "nbytes")

    def __init__(self, folder: Path | None, memory: int, disk: int) -> None:
        self._folder, self._memory, self._disk = folder, memory, disk
        self._states: OrderedDict[tuple[str, str], Kept] = OrderedDict()
        self._lock = threading.Lock()
        self.nbytes = 0

    def put(self, owner: str, id: str, kept: Kept, disk: bool = True) -> None:
        """Keep a state under an id; on disk it is when this returns.

        A disk that cannot be written to is no error.
        """
        key = owner, checked_id(id)
        with self._lock:
            self._discard(key)
            self._states[key] = kept
            self.nbytes += kept.state.nbytes
            while self.nbytes > self._memory and len(self._states) > 1:
                self._discard(next(iter(self._states)))
        if disk and self._folder is not None:
            with contextlib.suppress(OSError):
                home = self._home(owner)
                kept.state.save(home / f"{id}.safetensors", sync=False, private=True)
                notes = {
                    "model": kept.model,
                    "rest": list(kept.rest),
                    "created": int(time.time()),
                    **kept.about,
                }
                write_whole(home / f"{id}.json", [json.dumps(notes).encode()], sync=False, private=True)
                self._trim(home)

    def get(self, owner: str, id: str, model: Model, name: str) -> Kept:
        """The state under an id, for `model`. Raises Problem for none, and for one of another model."""
        key = owner, checked_id(id)
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
            about = {name: value for name, value in notes.items() if name not in ("model", "rest")}
            return Kept(state, tuple(notes.get("rest", ())), notes.get("model", name), about)
        try:
            model.own(found.state)
        except StateError:
            sentence = f"State '{id}' belongs to the model '{found.model}', not to '{name}'."
            raise Problem(409, sentence, code="wrong_state") from None
        return found

    def notes(self, owner: str, id: str) -> dict[str, Any]:
        """What is known of a state. Raises Problem for an unknown id."""
        with self._lock:
            found = self._states.get((owner, checked_id(id)))
        if found is not None:
            return {"model": found.model, "rest": list(found.rest), **found.about}
        if self._folder is not None:
            with contextlib.suppress(OSError, ValueError):
                notes = parsed_file(self._home(owner) / f"{id}.json")
                if isinstance(notes, dict) and (self._home(owner) / f"{id}.safetensors").is_file():
                    return notes
        raise Problem(404, f"There is no '{id}'.", param="id", code="not_found")

    def ids(self, owner: str, prefix: str) -> list[str]:
        """The ids of an owner that begin so."""
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


def checked_id(id: str) -> str:
    """An id that names no path. Raises Problem."""
    if not _ID.fullmatch(id):
        raise Problem(404, "There is no state of this id.", param="id", code="not_found")
    return id


def _without(path: Path, error: StateError) -> str:
    return str(error).replace(f"{path}: ", "").replace(str(path), "the file")
