"""What is said when a package is missing that a feature needs: a command that installs it into this very
Python.
"""

import importlib.util
import re
import shlex
import shutil
import sys
from importlib import metadata
from pathlib import Path

from rwkv_engine.errors import MissingExtra


def missing(feature: str, extra: str, package: str) -> MissingExtra:
    """The error for a feature whose package is not installed; its sentence ends with the command that
    installs it.

    feature  what needs it, as the beginning of the sentence.    extra  this package's extra that asks for it.
    package  its name, for an installation that does not know the extra.
    """
    wanted = " ".join(shlex.quote(one) for one in requirements(extra) or [package])
    return MissingExtra(
        f"{feature} needs the package {package}; get it with: {installer()} {wanted}", name=extra
    )


def requirements(extra: str) -> list[str]:
    """What an extra asks for, such as "jinja2>=3.1": those themselves can be installed wherever this package
    came from.
    """
    try:
        lines = metadata.requires("rwkv-engine") or []
    except metadata.PackageNotFoundError:
        return []
    marked = (re.fullmatch(r"(.+?)\s*;\s*extra\s*==\s*[\"'](.+)[\"']", line) for line in lines)
    return [found[1] for found in marked if found and found[2] == extra]


def installer() -> str:
    """The command that installs packages for the Python that runs this: its own `pip` by name if a shell
    finds that one first.
    """
    beside = Path(sys.executable or "python3").parent
    found = shutil.which("pip")
    if found and Path(found).parent == beside:
        return "pip install"
    python = shlex.quote(sys.executable or "python3")
    if importlib.util.find_spec("pip") is None and shutil.which("uv"):
        return f"uv pip install --python {python}"
    return f"{python} -m pip install"
