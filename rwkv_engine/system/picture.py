"""Pictures by matplotlib, which only the extra `plot` installs."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rwkv_engine.errors import OptionError
from rwkv_engine.system.extras import missing
from rwkv_engine.system.files import write_whole


@contextmanager
def two_panels(path: str | Path) -> Iterator[tuple[Any, Any]]:
    """The axes of two panels beside each other; what is drawn on them becomes a PNG, whole or not at all.

    Raises MissingExtra without matplotlib, OptionError if the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise missing("--plot", "plot", "matplotlib") from None
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    yield left, right
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    try:
        write_whole(path, [picture.getbuffer()])
    except OSError as error:
        raise OptionError(f"--plot {path}: {error.strerror or error}") from None
