"""Pictures by matplotlib, which only the extra `plot` installs."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rwkv_engine.errors import OptionError
from rwkv_engine.system.extras import missing
from rwkv_engine.system.files import write_whole

#: ground and ink, by whether the picture is dark
_COLORS = {False: ("#ffffff", "#1f2328"), True: ("#0d1117", "#e6edf3")}


@contextmanager
def figure(path: str | Path, size: tuple[float, float], dark: bool = False) -> Iterator[Any]:
    """A matplotlib figure of so many inches; what is drawn on it becomes a PNG, whole or not at all.

    dark    light ink on a dark ground.
    Raises  MissingExtra without matplotlib, OptionError if the file cannot be written.
    """
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError:
        raise missing("--plot", "plot", "matplotlib") from None
    ground, ink = _COLORS[dark]
    inks = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    grounds = ("figure.facecolor", "axes.facecolor", "savefig.facecolor")
    colors: dict[Any, str] = {name: ink for name in inks} | {name: ground for name in grounds}
    with matplotlib.rc_context(colors):
        drawn = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08))  # inches
        FigureCanvasAgg(drawn)
        yield drawn
        picture = io.BytesIO()
        drawn.savefig(picture, format="png", dpi=120)
    try:
        write_whole(path, [picture.getbuffer()])
    except OSError as error:
        raise OptionError(f"--plot {path}: {error.strerror or error}") from None


@contextmanager
def two_panels(path: str | Path) -> Iterator[tuple[Any, Any]]:
    """The axes of two panels beside each other; see `figure`."""
    with figure(path, (10, 4)) as drawn:
        left, right = drawn.subplots(1, 2)
        yield left, right
