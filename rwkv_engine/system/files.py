"""Files that are written whole or not at all, and unfinished ones, whose writers hold a lock on them."""

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows: there only their age tells unfinished files from those at work
    fcntl = None  # type: ignore[assignment]

Parts = Iterable[bytes | memoryview]

#: seconds after which an unfinished file is nobody's any more where there are no locks
ABANDONED = 86_400
_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOCTTY", 0)
_LOOK = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0) | _FLAGS
#: bytes of a file's name up to which its temporary file has the same name in it
_LONG_NAME = 200


def expanded(path: str | Path) -> Path:
    """The path, a leading ~ being the user's home folder, as in a shell."""
    return Path(os.path.expanduser(path))


def write_whole(path: str | Path, parts: Parts, sync: bool = True, private: bool = False) -> None:
    """Write `parts` one after another to a temporary file beside `path`, sync it, then rename it into place.

    A symbolic link is followed. Character devices and FIFOs are written to as they are; everything else that
    is no ordinary file is refused. A file that is replaced keeps its permissions; a new one is as the umask
    says, or `private`: the user's alone. Without `sync` a power cut may leave a damaged file: for what can be
    made again and is checked when it is read. Whatever goes wrong, `path` holds either its old content or all
    of the new. Raises OSError; nothing stays behind, except by a process that is killed: then the next
    `remove_leftovers` clears up.
    """
    path = Path(path)
    about = _about(path)
    if about is not None and not stat.S_ISREG(about.st_mode):
        with os.fdopen(os.open(path, os.O_WRONLY | _FLAGS), "wb") as stream:
            _write(stream, parts)
        return
    target = Path(os.path.realpath(path))
    handle, temporary = _temporary(target, 0o600 if private or about is not None else 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            if about is not None and not private:
                with contextlib.suppress(OSError):  # a file system without permissions
                    os.chmod(temporary, about.st_mode & 0o777)
            _write(file, parts)
            file.flush()
            if sync:
                os.fsync(file.fileno())
            if fcntl is None:
                file.close()  # Windows renames no open file; elsewhere it stays locked until it has its name
            os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if sync:
        _sync_folder(target.parent)


def remove_leftovers(path: str | Path) -> None:
    """Delete the temporary files that writers of `path` left behind when they were killed; those at work are
    left alone.
    """
    path = Path(os.path.realpath(path))
    pattern = re.compile(rf"\.{re.escape(_stem(path.name))}\.[0-9a-f]{{8}}\.part")
    for file in path.parent.iterdir() if path.parent.is_dir() else ():
        if pattern.fullmatch(file.name):
            remove_abandoned(file)


def remove_abandoned(path: Path) -> None:
    """Delete an unfinished file or folder, unless a process is at work on it: that one holds its lock.

    Where there are no locks (some network file systems), it is left alone until nobody has touched it for a
    day.
    """
    try:
        handle = os.open(path, os.O_RDONLY | _LOOK)
    except OSError:
        return  # it is gone, or not ours
    try:
        about = os.fstat(handle)
        if _taken(handle, about) or not _same(path, about):
            return
        if stat.S_ISDIR(about.st_mode):
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    except OSError:
        pass  # it may be read and not deleted
    finally:
        os.close(handle)


def hold(path: Path) -> int | None:
    """Lock a folder that is being filled, so that `remove_abandoned` leaves it alone; the handle to
    `os.close` when it is done.

    None where folders cannot be locked. Raises FileNotFoundError if it was deleted before it could be locked.
    """
    try:
        handle = os.open(path, os.O_RDONLY | _FLAGS)
    except PermissionError:
        return None  # Windows opens no folder
    if _lock(handle, path):
        return handle
    os.close(handle)
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))


def _about(path: Path) -> os.stat_result | None:
    """What is at a path, links followed; None: nothing. Raises OSError for what must not be written to."""
    try:
        about = os.stat(path)
    except FileNotFoundError:
        return None  # or a link to what does not exist yet
    if stat.S_ISDIR(about.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder; give the path of a file", str(path))
    if not (stat.S_ISREG(about.st_mode) or stat.S_ISCHR(about.st_mode) or stat.S_ISFIFO(about.st_mode)):
        raise OSError(errno.EINVAL, "it is no ordinary file; give another path", str(path))
    return about


def _write(stream: BinaryIO, parts: Parts) -> None:
    for part in parts:
        stream.write(part)


def _temporary(target: Path, mode: int) -> tuple[int, Path]:
    """A new file beside `target`, locked: (handle, path).

    The system takes from `mode` what the umask says.
    """
    while True:
        path = target.parent / f".{_stem(target.name)}.{secrets.token_hex(4)}.part"
        with contextlib.suppress(FileExistsError):
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS, mode)
            if _lock(handle, path):
                return handle, path
            os.close(handle)


def _stem(name: str) -> str:
    """What a temporary file's name has of its target's: there must be room for the rest."""
    raw = os.fsencode(name)
    return name if len(raw) <= _LONG_NAME else hashlib.blake2b(raw, digest_size=16).hexdigest()


def _lock(handle: int, path: Path) -> bool:
    """Lock an open file or folder; False if it was deleted meanwhile, by a process that took it for a
    leftover.
    """
    if fcntl is not None:
        with contextlib.suppress(OSError):  # no locks here
            fcntl.flock(handle, fcntl.LOCK_EX)
    return _same(path, os.fstat(handle))


def _taken(handle: int, about: os.stat_result) -> bool:
    """Whether another process holds the lock; it is this one's if not.

    Without locks: whether it was touched within a day.
    """
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
    except BlockingIOError:
        return True
    except OSError:
        pass  # no locks here
    return time.time() - about.st_mtime < ABANDONED


def _same(path: Path, about: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), about)
    except OSError:
        return False


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` last through a power cut, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
