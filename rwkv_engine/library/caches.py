"""The user's caches: what they hold, and deleting it. All of it is made again when it is needed."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rwkv_engine.errors import OptionError
from rwkv_engine.system.files import remove_abandoned
from rwkv_engine.system.folders import cache_folder

#: what is kept, by name -> (for people, its folders and files below the cache folder)
KINDS = {
    "compiled": ("programs that were compiled for this processor", ("compiled",)),
    "quantized": (
        "what --weights int8, int5 and int4 made of models",
        ("*.safetensors", ".*.safetensors.*.part", "digests"),
    ),
    "prefixes": ("states behind long prompts", ("prefixes",)),
}


@dataclass(frozen=True, slots=True)
class Cache:
    """One kind of cached things: how many bytes in how many files."""

    name: str
    holds: str
    files: int
    bytes: int


def caches() -> list[Cache]:
    """All kinds with their sizes. Raises OSError for a user without a home."""
    found = []
    for name, (holds, _) in KINDS.items():
        sizes = [path.lstat().st_size for part in _parts(name) for path in _files(part)]
        found.append(Cache(name, holds, len(sizes), sum(sizes)))
    return found


def clear(name: str) -> None:
    """Delete one kind; files that a process is writing stay. Raises OptionError for others, and OSError."""
    for part in _parts(name):
        if part.is_dir() and not part.is_symlink():
            shutil.rmtree(part)
        elif part.suffix == ".part":
            remove_abandoned(part)
        else:
            part.unlink(missing_ok=True)


def _parts(name: str) -> list[Path]:
    if name not in KINDS:
        raise OptionError.of("cache", name, f"one of {', '.join(KINDS)}")
    return [path for pattern in KINDS[name][1] for path in cache_folder().glob(pattern)]


def _files(part: Path) -> Iterator[Path]:
    """A file, or all files below a folder; links to folders are not followed."""
    if part.is_symlink() or not part.is_dir():
        yield part
    for folder, _, names in os.walk(part):
        yield from (Path(folder, name) for name in names)
