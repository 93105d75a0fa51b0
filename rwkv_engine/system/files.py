"""Files that are written whole or not at all."""

import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path


def write_whole(path: str | Path, parts: Iterable[bytes | memoryview], sync: bool = True) -> None:
    """Write `parts` one after another to a temporary file beside `path`, sync it, then rename it into place.

    Without `sync` a power cut may leave a damaged file: for what can be made again and is checked when it is read.
    Whatever goes wrong, `path` holds either its old content or all of the new. Raises OSError; nothing stays behind, except by a
    process that is killed: then the next `remove_leftovers` clears up.
    """
    path = Path(path)
    handle, temporary = tempfile.mkstemp(
        prefix=f".{path.name}.{os.getpid()}.", suffix=".part", dir=path.parent
    )
    try:
        with os.fdopen(handle, "wb") as file:
            os.chmod(temporary, 0o666 & ~_umask())
            for part in parts:
                file.write(part)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    if sync:
        _sync_folder(path.parent)


def cache_folder() -> Path:
    """Where things are kept that can be made again: $XDG_CACHE_HOME/rwkv_engine, by default ~/.cache/rwkv_engine.

    Raises OSError for a user without a home.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rwkv_engine"
    except RuntimeError as error:  # pathlib's word for it
        raise OSError(str(error)) from error


def remove_leftovers(path: str | Path) -> None:
    """Delete the temporary files that writers of `path` left behind when they were killed; those at work are left alone."""
    path = Path(path)
    pattern = re.compile(rf"\.{re.escape(path.name)}\.(\d+)\..*\.part")
    for file in path.parent.iterdir() if path.parent.is_dir() else ():
        found = pattern.fullmatch(file.name)
        if found and not process_runs(int(found[1])):
            file.unlink(missing_ok=True)


def process_runs(process: int) -> bool:
    """Whether a process of this number runs."""
    if os.name != "posix":
        return True  # there is no harmless way to ask
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` last through a power cut, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _umask() -> int:
    """Permission bits that this process takes away from new files (they can only be read by setting them)."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
