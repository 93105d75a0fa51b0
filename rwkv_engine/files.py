"""Files that are written whole or not at all."""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path


def write_whole(path: str | Path, parts: Iterable[bytes | memoryview]) -> None:
    """Write `parts` one after another to a temporary file beside `path`, sync it, then rename it into place.

    Whatever goes wrong, `path` holds either its old content or all of the new. Raises OSError; nothing stays behind.
    """
    path = Path(path)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            os.chmod(temporary, 0o666 & ~_umask())
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _umask() -> int:
    """Permission bits that this process takes away from new files (they can only be read by setting them)."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
