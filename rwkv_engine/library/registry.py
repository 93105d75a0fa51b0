"""The user's models: short names for model files, kept in one folder.

    models/NAME.json          one record; writing it whole registers the model, deleting it removes the name
    models/data/NAME.PID.N/   its files, written before the record
    models/downloads/         what `hub` has fetched so far

A folder below data/ that no record names is left over from a process that was killed, once that process is gone.
"""

import itertools
import json
import os
import re
import shutil
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from rwkv_engine.errors import CheckpointError, OptionError
from rwkv_engine.system.files import process_runs, remove_leftovers, write_whole

VERSION = 1
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
#: of this process's folders below data/
_NUMBERS = itertools.count()
#: a model's folder below data/, and a record that is being written
_DATA, _PART = re.compile(r".*\.(\d+)\.\d+"), re.compile(r"\.(.+\.json)\.\d+\..*")


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
    """Where models are kept: $XDG_DATA_HOME/rwkv_engine/models, by default ~/.local/share/rwkv_engine/models.

    Raises OptionError for a user without a home.
    """
    try:
        return (
            Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
            / "rwkv_engine"
            / "models"
        )
    except RuntimeError:  # pathlib's word for a user without a home
        raise OptionError(
            "there is no home folder to keep models in; set XDG_DATA_HOME, or give a model's path"
        ) from None


def downloads_folder() -> Path:
    """Where downloads lie until they are whole."""
    return models_folder() / "downloads"


def check_name(name: str) -> str:
    """The name, if it may be a model's. Raises OptionError."""
    if not NAME.fullmatch(name):
        raise OptionError(
            f"model name {name[:100]!r}: want letters, digits and . - _, with a letter or digit first"
        )
    return name


def names() -> list[str]:
    """Names of all registered models, sorted; damaged records too."""
    folder = models_folder()
    return (
        sorted(file.stem for file in folder.glob("*.json") if NAME.fullmatch(file.stem))
        if folder.is_dir()
        else []
    )


def record(name: str) -> Record:
    """What is registered as `name`. Raises CheckpointError for a record that is missing or damaged."""
    path = models_folder() / f"{name}.json"
    try:
        content = json.loads(path.read_text("utf-8"))
        version = content.pop("version")
        found = Record(**content)
    except FileNotFoundError:
        raise CheckpointError(f"no model is called {name!r}; {_what_there_is()}") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is damaged ({type(error).__name__}); pull {name} again, or remove it"
        ) from None
    good = all(
        isinstance(getattr(found, field.name), int if field.name == "bytes" else str)
        for field in fields(Record)
    )
    inside = (
        good
        and Path(os.path.normpath(found.path)).parts[:1] == ("data",)
        and not Path(found.path).is_absolute()
    )
    if version != VERSION or found.name != name or not inside:
        raise CheckpointError(
            f"{path} is damaged, or of another version of the engine; pull {name} again, or remove it"
        )
    return found


def path_of(found: Record) -> Path:
    """The model's file or folder."""
    return models_folder() / found.path


def resolve(source: str | Path) -> Path:
    """The path that a model's path or short name stands for; a path that exists wins.

    Raises CheckpointError for a bare word that is neither, saying what names there are. Other paths come back as they are.
    """
    path = Path(source)
    word = str(source)
    if not NAME.fullmatch(word) or os.path.lexists(path):
        return path
    if (models_folder() / f"{word}.json").is_file():
        found = path_of(record(word))
        if not found.exists():
            raise CheckpointError(
                f"the files of model {word} are gone ({found}); pull it again, or remove it"
            )
        return found
    raise CheckpointError(f"{word} does not exist, and no model is called so; {_what_there_is()}")


def new_folder(name: str) -> Path:
    """An empty folder for a model's files, to be named by a `register` to come.

    No process gives a name twice: another may be about to delete the folder that had it, having registered a model in its place.
    """
    parent = models_folder() / "data"
    parent.mkdir(parents=True, exist_ok=True)
    while True:
        folder = parent / f"{check_name(name)}.{os.getpid()}.{next(_NUMBERS)}"
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            pass  # of an older process that had this number


def register(new: Record) -> None:
    """Make a name stand for files that are in place; an older model of that name goes. Raises OSError."""
    check_name(new.name)
    old = _record_or_none(new.name)
    text = json.dumps({"version": VERSION, **asdict(new)}, indent=1)
    write_whole(models_folder() / f"{new.name}.json", [text.encode()])
    if old is not None and old.path != new.path:
        shutil.rmtree(_own_folder(old), ignore_errors=True)


def remove(name: str) -> None:
    """Forget a model and delete its files. Raises CheckpointError for a name that is not registered."""
    path = models_folder() / f"{check_name(name)}.json"
    old = _record_or_none(name)
    try:
        path.unlink()
    except FileNotFoundError:
        raise CheckpointError(f"no model is called {name!r}; {_what_there_is()}") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be removed: {error.strerror or error}") from None
    if old is not None:
        shutil.rmtree(_own_folder(old), ignore_errors=True)
    clear_leftovers()


def clear_leftovers() -> None:
    """Delete what killed processes left behind; what a process at work or a record needs stays."""
    folder = models_folder()
    for part in list(folder.glob(".*.part")):
        written = _PART.fullmatch(part.name)
        if written:
            remove_leftovers(folder / written[1])
    used = {_own_folder(found) for name in names() if (found := _record_or_none(name)) is not None}
    damaged = any(_record_or_none(name) is None for name in names())
    for part in (folder / "data").iterdir() if (folder / "data").is_dir() and not damaged else ():
        made = _DATA.fullmatch(part.name)
        if made and part not in used and not process_runs(int(made[1])):
            shutil.rmtree(part, ignore_errors=True)


def _own_folder(found: Record) -> Path:
    """The folder below data/ that holds the model's files."""
    return models_folder().joinpath(*Path(os.path.normpath(found.path)).parts[:2])


def _record_or_none(name: str) -> Record | None:
    try:
        return record(name)
    except CheckpointError:
        return None


def _what_there_is() -> str:
    known = names()
    return f"there are {', '.join(known)}" if known else "none is registered yet: `rwkv pull` gets models"
