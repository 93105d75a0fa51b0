"""A picture of a report: speed against the roofline, and the latency of every token of a run."""

import io
from pathlib import Path

from rwkv_engine.bench.report import Report
from rwkv_engine.errors import OptionError
from rwkv_engine.system.extras import missing
from rwkv_engine.system.files import write_whole


def plot(r: Report, path: str | Path) -> None:
    """Write a PNG. Raises MissingExtra without matplotlib, OptionError where it cannot be written."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise missing("a picture", "plot", "matplotlib") from None
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    speeds, run = figure.subplots(1, 2)
    names = ["decode", *(f"prompt\n{length}" for length in r.prefill)]
    bars = speeds.bar(names, [r.decode, *r.prefill.values()])
    speeds.bar_label(bars, fmt="{:.0f}")
    speeds.axhline(r.bound, color="tab:red", linewidth=1)
    speeds.set_title(
        f"{r.model['name']}, {r.model['format']}; red: decoding at full bandwidth, {r.bound:.0f}", fontsize=10
    )
    speeds.set_ylabel("tokens/s")
    run.plot([1e3 * seconds for seconds in r.latencies], linewidth=1)
    run.axhline(1e3 / r.bound, color="tab:red", linewidth=1)
    run.set_ylim(bottom=0)
    run.set_xlabel("token")
    run.set_ylabel("ms")
    run.set_title(f"{r.machine['processor']}, {r.machine['lanes']} lanes, {r.machine['level']}", fontsize=10)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    try:
        write_whole(path, [picture.getbuffer()])
    except OSError as error:
        raise OptionError(f"--plot {path}: {error.strerror or error}") from None
