"""The user's folders for the cache, data and models; keeps private data private.

A relative XDG_CACHE_HOME or XDG_DATA_HOME is ignored, as the XDG Base Directory Specification says.
"""

import os
import stat
from pathlib import Path

NAME = "rwkv_engine"


def cache_folder() -> Path:
    """For files that can be made again: $XDG_CACHE_HOME/rwkv_engine, ~/.cache/rwkv_engine on Linux.

    Raises OSError for a user without a home.
    """
    return _folder("XDG_CACHE_HOME", ".cache")


def data_folder() -> Path:
    """For conversations and models: $XDG_DATA_HOME/rwkv_engine, ~/.local/share/rwkv_engine on Linux.

    Raises OSError for a user without a home.
    """
    return _folder("XDG_DATA_HOME", ".local/share")


def private_folder(path: Path, close: bool = True) -> Path:
    """Make a folder that only the user can read. Raises OSError.

    close  also restrict an existing folder of the user; not for one that the user chose, which may hold other
           things.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if close:
        _close(path)
    return path


def private_file(path: Path) -> Path:
    """Make an empty file only the user can read; restrict an existing one of the user. Raises OSError."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0), 0o600))
    _close(path)
    return path


def _close(path: Path) -> None:
    """Remove other users' permissions from the user's own file or folder."""
    about = path.stat()
    if os.name == "posix" and about.st_uid == os.geteuid() and about.st_mode & 0o077:
        path.chmod(stat.S_IMODE(about.st_mode) & 0o700)


def _folder(variable: str, default: str) -> Path:
    given = os.environ.get(variable, "")
    if os.path.isabs(given):
        return Path(given) / NAME
    import platformdirs  # takes 10 ms: import it only if needed

    known = {"XDG_CACHE_HOME": platformdirs.user_cache_path, "XDG_DATA_HOME": platformdirs.user_data_path}
    path = known[variable](NAME, appauthor=False)
    if not path.is_absolute() and given:  # platformdirs before 4.11 accepts a relative one
        path = Path(os.path.expanduser("~")) / default / NAME
    if not path.is_absolute():
        raise OSError(f"there is no home folder; set {variable} to an absolute path")
    return path
