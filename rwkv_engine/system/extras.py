"""The error for a missing package, with a command that installs it for this Python."""

import importlib.util
import re
import shlex
import shutil
import sys
from importlib import metadata
from pathlib import Path

from rwkv_engine.errors import MissingExtra


def missing(feature: str, extra: str, package: str) -> MissingExtra:
    """The error for a feature whose package is not installed; its message ends with the install command.

    feature  start of the sentence: what needs the package.
    extra    this package's extra that includes it.
    package  its name, if the installation does not know the extra.
    """
    wanted = " ".join(shlex.quote(one) for one in requirements(extra) or [package])
    return MissingExtra(
        f"{feature} needs the package {package}; get it with: {installer()} {wanted}", name=extra
    )


def requirements(extra: str) -> list[str]:
    """The requirements of an extra, such as "jinja2>=3.1"; they work wherever this package came from."""
    try:
        lines = metadata.requires("rwkv-engine") or []
    except metadata.PackageNotFoundError:
        return []
    marked = (re.fullmatch(r"(.+?)\s*;\s*extra\s*==\s*[\"'](.+)[\"']", line) for line in lines)
    return [found[1] for found in marked if found and found[2] == extra]


def installer() -> str:
    """The command that installs packages for this Python: plain `pip` if that is the first in PATH."""
    beside = Path(sys.executable or "python3").parent
    found = shutil.which("pip")
    if found and Path(found).parent == beside:
        return "pip install"
    python = shlex.quote(sys.executable or "python3")
    if importlib.util.find_spec("pip") is None and shutil.which("uv"):
        return f"uv pip install --python {python}"
    return f"{python} -m pip install"
