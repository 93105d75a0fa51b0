"""The user's models: short names for model files, kept in one folder.

    models/NAME.json          one record; writing it whole registers the model, deleting it removes the name
    models/data/NAME@X/       its files, written before the record; X is drawn by lot and never comes twice
    models/downloads/         what `hub` has fetched so far

A folder below data/ that no record names is left over from a process that was killed, unless a process holds
its lock: that one is filling it. A record names files in its own model's folders alone, so a damaged one can
do no harm to other models.
"""

import contextlib
import difflib
import json
import os
import re
import secrets
import shutil
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from rwkv_engine.errors import CheckpointError, OptionError
from rwkv_engine.system import folders
from rwkv_engine.system.files import expanded, hold, remove_abandoned, write_whole
from rwkv_engine.system.json_text import parsed

VERSION = 1
#: the word for the model that comes with the engine
EMBEDDED = "embedded"
#: the words for models that come with the engine -> their files
INCLUDED = {EMBEDDED: "model.safetensors", "embedded-draft": "draft.safetensors"}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
#: a model's folder below data/
_DATA = re.compile(rf"({NAME.pattern})@[0-9a-f]{{8}}")
#: folders below data/ that this process is filling -> the handles that lock them
_HELD: dict[Path, int] = {}
#: characters of a record, and of one text in it
_RECORD_LIMIT, _TEXT_LIMIT = 1 << 16, 1000


@dataclass(frozen=True, slots=True)
class Record:
    """One registered model.

    name         short name, as in `-m NAME`.            family  "RWKV-7" ...
    format       a quantized one's name, or "BF16" ...   bytes   of its files together.
    path         of the file, or of the folder of shards, relative to the models folder.
    source       "owner/repo:file" it was pulled from.   revision  commit of that repository.
    digest       checksum of the files that were pulled.
    fingerprint  of the checkpoint, by which its states know it.
    """

    name: str
    family: str
    format: str
    bytes: int
    path: str
    source: str
    revision: str
    digest: str
    fingerprint: str


def models_folder() -> Path:
    """Where models are kept: `models` in the user's data folder.

    Raises OptionError for a user without a home.
    """
    try:
        return folders.data_folder() / "models"
    except OSError:
        raise OptionError(
            "there is no home folder to keep models in; set XDG_DATA_HOME, or give a model's path"
        ) from None


def downloads_folder() -> Path:
    """Where downloads lie until they are whole."""
    return models_folder() / "downloads"


def check_name(name: str) -> str:
    """The name, if it may be a model's. Raises OptionError."""
    if name in INCLUDED:
        raise OptionError(f"model name {name!r}: that is a model that comes with the engine; give another")
    if not NAME.fullmatch(name):
        raise OptionError(
            f"model name {name[:100]!r}: want letters, digits and . - _, with a letter or digit first"
        )
    return name


def names() -> list[str]:
    """Names of all registered models, sorted; damaged records too."""
    folder = models_folder()
    return (
        sorted(file.stem for file in folder.glob("*.json") if NAME.fullmatch(file.stem) and file.is_file())
        if folder.is_dir()
        else []
    )


def record(name: str) -> Record:
    """What is registered as `name`. Raises CheckpointError for a record that is missing or damaged."""
    path = models_folder() / f"{name}.json"
    try:
        with path.open("rb") as file:
            content = parsed(file.read(_RECORD_LIMIT))
        version = content.pop("version")
        found = Record(**content)
    except FileNotFoundError:
        raise CheckpointError(f"no model is called {name[:100]!r}; {_what_there_is(name)}") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is damaged ({type(error).__name__}); pull {name} again, or remove it"
        ) from None
    texts = [getattr(found, field.name) for field in fields(Record) if field.name != "bytes"]
    good = type(found.bytes) is int and 0 <= found.bytes < 1 << 62 and all(map(_is_text, texts))
    if version != VERSION or found.name != name or not good or not _is_inside(found):
        raise CheckpointError(
            f"{path} is damaged, or of another version of the engine; pull {name} again, or remove it"
        )
    return found


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _TEXT_LIMIT and value.isprintable()


def _is_inside(found: Record) -> bool:
    """Whether a record's path is one of its own model's folders, or a file in one, spelled plainly."""
    parts = Path(found.path).parts
    owner = _DATA.fullmatch(parts[1]) if len(parts) in (2, 3) and parts[0] == "data" else None
    plain = found.path == "/".join(parts) and ".." not in parts and all(len(part) <= 255 for part in parts)
    return plain and owner is not None and owner[1] == found.name


def path_of(found: Record) -> Path:
    """The model's file or folder."""
    return models_folder() / found.path


def resolve(source: str | Path) -> Path:
    """The path that a model's path or short name stands for; a path that exists wins.

    Raises CheckpointError for a bare word that is neither, saying what names there are. Other paths come back
    as they are.
    """
    path = expanded(source)
    word = str(source)
    if word in INCLUDED or not NAME.fullmatch(word) or os.path.lexists(path):
        return path
    if (models_folder() / f"{word}.json").is_file():
        found = path_of(record(word))
        if not found.exists():
            raise CheckpointError(
                f"the files of model {word} are gone ({found}); pull it again, or remove it"
            )
        return found
    raise CheckpointError(
        f"{word} does not exist, and no model is called so; {_what_there_is(word)}", name=word
    )


def make_folder(path: Path) -> Path:
    """Make a folder below the models folder; the data folder around it is the user's alone.

    Raises OSError, OptionError.
    """
    folders.private_folder(models_folder().parent)
    path.mkdir(parents=True, exist_ok=True)
    return path


def new_folder(name: str) -> Path:
    """An empty folder for a model's files, to be named by a `register` to come, or given up by `discard`.

    Raises OSError.

    No process gives a name twice: another may be about to delete the folder that had it, having registered a
    model in its place.
    """
    parent = make_folder(models_folder() / "data")
    while True:
        folder = parent / f"{check_name(name)}@{secrets.token_hex(4)}"
        with contextlib.suppress(FileExistsError, FileNotFoundError):  # drawn twice; taken for a leftover
            folder.mkdir()
            handle = hold(folder)
            if handle is not None:
                _HELD[folder] = handle
            return folder


def discard(folder: Path) -> None:
    """Delete a folder that `new_folder` made, as no model will come of it."""
    shutil.rmtree(folder, ignore_errors=True)
    _let_go(folder)


def register(new: Record) -> None:
    """Make a name stand for files that are in place; an older model of that name goes. Raises OSError."""
    check_name(new.name)
    assert _is_inside(new), new.path
    old = _record_or_none(new.name)
    text = json.dumps({"version": VERSION, **asdict(new)}, indent=1)
    write_whole(models_folder() / f"{new.name}.json", [text.encode()])
    _let_go(_own_folder(new))
    if old is not None and _own_folder(old) != _own_folder(new):
        shutil.rmtree(_own_folder(old), ignore_errors=True)


def remove(name: str) -> None:
    """Forget a model and delete its files. Raises CheckpointError for a name that is not registered."""
    path = models_folder() / f"{check_name(name)}.json"
    old = _record_or_none(name)
    try:
        path.unlink()
    except FileNotFoundError:
        raise CheckpointError(f"no model is called {name!r}; {_what_there_is(name)}") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be removed: {error.strerror or error}") from None
    if old is not None:
        shutil.rmtree(_own_folder(old), ignore_errors=True)
    clear_leftovers()


def clear_leftovers() -> None:
    """Delete what killed processes left behind; what a process at work or a record needs stays, and what a
    damaged one may need.
    """
    folder = models_folder()
    for part in list(folder.glob(".*.part")):
        remove_abandoned(part)
    records = {name: _record_or_none(name) for name in names()}
    used = {_own_folder(found) for found in records.values() if found is not None}
    damaged = {name for name, found in records.items() if found is None}
    for part in list((folder / "data").glob("*@*")):
        made = _DATA.fullmatch(part.name)
        if made and part not in used and made[1] not in damaged:
            remove_abandoned(part)


def _let_go(folder: Path) -> None:
    if (handle := _HELD.pop(folder, None)) is not None:
        os.close(handle)


def _own_folder(found: Record) -> Path:
    """The folder below data/ that holds the model's files."""
    return models_folder().joinpath(*Path(found.path).parts[:2])


def _record_or_none(name: str) -> Record | None:
    try:
        return record(name)
    except CheckpointError:
        return None


def _what_there_is(wrong: str) -> str:
    """The nearest name, or how to get a model of that name; without one, the names that there are."""
    from rwkv_engine.library.known_models import KNOWN  # imports all that models need; only where it is told

    registered = names()
    near = difflib.get_close_matches(wrong, registered, 1)
    if near:
        return f"did you mean {near[0]}?"
    gets = [row.name for row in KNOWN if row.name not in registered]
    near = difflib.get_close_matches(wrong.lower(), gets, 1)
    if near:
        return f"`rwkv pull {near[0]}` gets {'it' if near[0] == wrong else near[0]}"
    return (
        f"there are {', '.join(registered)}"
        if registered
        else "none is registered yet: `rwkv pull` gets models"
    )
