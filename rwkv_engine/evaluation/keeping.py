"""What of an evaluation is done, kept in a folder: one that was stopped goes on from there."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rwkv_engine.errors import EngineError, OptionError
from rwkv_engine.model import Model
from rwkv_engine.state import State
from rwkv_engine.system.files import write_whole
from rwkv_engine.system.json_text import parsed_file

#: version of what is kept
VERSION = 1


class Keeper:
    """A folder with a file for each text and task that was begun; without a folder nothing is kept.

    Raises OptionError where the folder cannot be made or written.
    """

    __slots__ = ("_folder",)

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OptionError(f"resume: {folder}: {error.strerror or error}", path=folder) from None

    @property
    def keeps(self) -> bool:
        """Whether there is a folder."""
        return self._folder is not None

    def find(self, key: str) -> dict[str, Any] | None:
        """What was kept under a key."""
        if self._folder is None:
            return None
        try:
            found = parsed_file(self._folder / f"{key}.json")
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def states(self, key: str, number: int, models: Sequence[Model]) -> list[State] | None:
        """The states that were kept with step `number`; None if one is gone."""
        assert self._folder is not None
        try:
            return [model.load_state(self._path(key, number, i)) for i, model in enumerate(models)]
        except (EngineError, OSError):
            return None

    def keep(self, key: str, what: dict[str, Any], number: int = 0, states: Sequence[State] = ()) -> None:
        """Keep this under a key, and the states of step `number`; those of earlier steps go."""
        if self._folder is None:
            return
        try:
            for i, state in enumerate(states):
                state.save(self._path(key, number, i), sync=False)
            write_whole(self._folder / f"{key}.json", [json.dumps(what).encode()], sync=False)
            now = {self._path(key, number, i) for i in range(len(states))}
            for old in self._folder.glob(f"{key}-*.state"):
                if old not in now:
                    old.unlink(missing_ok=True)
        except OSError as error:
            raise OptionError(
                f"resume: {self._folder}: {error.strerror or error}", path=self._folder
            ) from None

    def _path(self, key: str, number: int, which: int) -> Path:
        assert self._folder is not None
        return self._folder / f"{key}-{number}-{which}.state"


def key_of(*parts: object) -> str:
    """A name for what these parts together ask for."""
    told = json.dumps([VERSION, *map(str, parts)]).encode()
    return hashlib.blake2b(told, digest_size=12).hexdigest()


def digest_of(path: Path) -> str:
    """A digest of a file's content. Raises OptionError where it cannot be read."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        with open(path, "rb") as file:
            while data := file.read(1 << 20):
                digest.update(data)
    except OSError as error:
        raise OptionError(f"{path}: {error.strerror or error}", path=path) from None
    return digest.hexdigest()
