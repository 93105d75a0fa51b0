"""Files that are written completely or not at all, and unfinished ones, which their writers lock."""

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
except ImportError:  # Windows: only age tells abandoned files from those being written
    fcntl = None  # type: ignore[assignment]

Parts = Iterable[bytes | memoryview]

#: without locks, an unfinished file of this age (seconds) is abandoned
ABANDONED = 86_400
_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOCTTY", 0)
_LOOK = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0) | _FLAGS
#: longer names (bytes) are hashed in the name of the temporary file
_LONG_NAME = 200


def expanded(path: str | Path) -> Path:
    """The path, a leading ~ being the user's home folder, as in a shell."""
    return Path(os.path.expanduser(path))


def write_whole(path: str | Path, parts: Parts, sync: bool = True, private: bool = False) -> None:
    """Write `parts` to a temporary file beside `path`, sync it, then rename it into place. Raises OSError.

    A symbolic link is followed. Character devices and FIFOs are written directly; other special files are
    refused. A replaced file keeps its permissions; a new one follows the umask, or is `private`: only for the
    user. Without `sync`, a power failure may leave a damaged file: use it only for files that are checked and
    can be made again. Whatever happens, `path` has its old content or all of the new. Only a killed process
    leaves a temporary file, which the next `remove_leftovers` deletes.
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
                file.close()  # Windows cannot rename an open file; elsewhere it stays locked until renamed
            os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if sync:
        _sync_folder(target.parent)


def remove_leftovers(path: str | Path) -> None:
    """Delete temporary files that killed writers of `path` left; files still being written are kept."""
    path = Path(os.path.realpath(path))
    pattern = re.compile(rf"\.{re.escape(_stem(path.name))}\.[0-9a-f]{{8}}\.part")
    for file in path.parent.iterdir() if path.parent.is_dir() else ():
        if pattern.fullmatch(file.name):
            remove_abandoned(file)


def remove_abandoned(path: Path) -> None:
    """Delete an unfinished file or folder, unless a process is still writing it and holds its lock.

    Without locks (some network file systems), it is deleted after a day without changes.
    """
    try:
        handle = os.open(path, os.O_RDONLY | _LOOK)
    except OSError:
        return  # gone, or not ours
    try:
        about = os.fstat(handle)
        if _taken(handle, about) or not _same(path, about):
            return
        if stat.S_ISDIR(about.st_mode):
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    except OSError:
        pass  # readable, but we may not delete it
    finally:
        os.close(handle)


def hold(path: Path) -> int | None:
    """Lock a folder that is being filled against `remove_abandoned`; returns a handle for `os.close`.

    None if folders cannot be locked. Raises FileNotFoundError if it was deleted before the lock.
    """
    try:
        handle = os.open(path, os.O_RDONLY | _FLAGS)
    except PermissionError:
        return None  # Windows cannot open a folder
    if _lock(handle, path):
        return handle
    os.close(handle)
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))


def _about(path: Path) -> os.stat_result | None:
    """What is at a path (links followed), or None. Raises OSError for what must not be written to."""
    try:
        about = os.stat(path)
    except FileNotFoundError:
        return None  # or a dangling link
    if stat.S_ISDIR(about.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder; give the path of a file", str(path))
    if not (stat.S_ISREG(about.st_mode) or stat.S_ISCHR(about.st_mode) or stat.S_ISFIFO(about.st_mode)):
        raise OSError(errno.EINVAL, "it is no ordinary file; give another path", str(path))
    return about


def _write(stream: BinaryIO, parts: Parts) -> None:
    for part in parts:
        stream.write(part)


def _temporary(target: Path, mode: int) -> tuple[int, Path]:
    """A new locked file beside `target`: (handle, path). The umask applies to `mode`."""
    while True:
        path = target.parent / f".{_stem(target.name)}.{secrets.token_hex(4)}.part"
        with contextlib.suppress(FileExistsError):
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS, mode)
            if _lock(handle, path):
                return handle, path
            os.close(handle)


def _stem(name: str) -> str:
    """The target's part of a temporary file's name, short enough to leave room for the rest."""
    raw = os.fsencode(name)
    return name if len(raw) <= _LONG_NAME else hashlib.blake2b(raw, digest_size=16).hexdigest()


def _lock(handle: int, path: Path) -> bool:
    """Lock an open file or folder; False if it was deleted meanwhile as a leftover."""
    if fcntl is not None:
        with contextlib.suppress(OSError):  # no locks here
            fcntl.flock(handle, fcntl.LOCK_EX)
    return _same(path, os.fstat(handle))


def _taken(handle: int, about: os.stat_result) -> bool:
    """Whether another process holds the lock; if not, this process takes it.

    Without locks: whether it was changed within a day.
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
    """Make a rename in `folder` survive a power failure, if the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
