"""A picture of rows: quality against bytes a token, and quality along the text."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rwkv_engine.evaluation.report import Row
from rwkv_engine.system.picture import two_panels

#: points and lines of one format after another; a model is a color
_MARKS = "os^vDPX"
_LINES = "-", "--", ":", "-."


def plot(rows: Sequence[Row], path: str | Path) -> None:
    """Write a PNG. Raises as `two_panels`."""
    models, formats = (list(dict.fromkeys(names)) for names in zip(*map(_names, rows), strict=True))
    looks = [
        {
            "color": f"C{models.index(model) % 10}",
            "marker": _MARKS[formats.index(form) % len(_MARKS)],
            "linestyle": _LINES[formats.index(form) % len(_LINES)],
        }
        for model, form in map(_names, rows)
    ]
    with two_panels(path) as (trade, way):
        _trade(trade, rows, looks)
        _way(way, rows, looks)
        way.legend(*trade.get_legend_handles_labels(), fontsize=8, loc="upper left", bbox_to_anchor=(1.02, 1))


def _names(row: Row) -> tuple[str, str]:
    return row.model.removesuffix(".safetensors"), row.format


def _quality(row: Row, figure: str) -> float | None:
    """A figure of the row; "right": the share of right answers of its first task."""
    value = row.tasks[0].accuracy if figure == "right" else getattr(row, figure)
    return None if value is None else float(value)


def _trade(axes: Any, rows: Sequence[Row], looks: Sequence[dict[str, str]]) -> None:
    """A point for each row, those of a model joined: divergence from the reference, without one bits a byte,
    without a text the share of right answers of the first task.
    """
    figure, label = "kl_mean", "mean KL, nats"
    if any(row.kl_mean is None for row in rows):
        figure, label = "bits_per_byte", "bits a byte"
    if any(row.bits_per_byte is None for row in rows):
        figure, label = "right", f"right of {rows[0].tasks[0].name}"
    for name in dict.fromkeys(row.model for row in rows):
        own = [(row.bytes_per_token / 1e6, _quality(row, figure)) for row in rows if row.model == name]
        color = next(look["color"] for row, look in zip(rows, looks, strict=True) if row.model == name)
        axes.plot(*zip(*sorted(own), strict=True), color=color, linewidth=0.8, alpha=0.5)
    for row, look in zip(rows, looks, strict=True):
        place, value = row.bytes_per_token / 1e6, _quality(row, figure)
        axes.plot([place], [value], label=" ".join(_names(row)), linewidth=1, markersize=5, **look)
        if figure == "bits_per_byte":
            axes.errorbar(place, value, yerr=row.bits_per_byte_error, color=look["color"])
    if figure == "kl_mean":
        _logarithmic(axes)
        for row, look in zip(rows, looks, strict=True):
            if row.kl_mean == 0:  # the reference itself, which no logarithm shows
                axes.axvline(row.bytes_per_token / 1e6, color=look["color"], linewidth=0.8, linestyle=":")
    axes.set_xlabel("MB of weights read for a token")
    axes.set_ylabel(label)


def _way(axes: Any, rows: Sequence[Row], looks: Sequence[dict[str, str]]) -> None:
    """A line for each row: divergence from the reference, or without one bits a byte, along the first text."""
    compared = any(row.against is not None for row in rows)
    figure = "kl_mean" if compared else "bits_per_byte"
    for row, look in zip(rows, looks, strict=True):
        for text in row.texts[:1]:
            places = [step["tokens"] for step in text["along"]]
            line = {"color": look["color"], "linestyle": look["linestyle"]}
            axes.plot(places, [step[figure] for step in text["along"]], linewidth=1, **line)
    axes.set_xlabel("tokens read")
    axes.set_ylabel("mean KL, nats" if compared else "bits a byte")
    if compared:
        _logarithmic(axes)


def _logarithmic(axes: Any) -> None:
    """A logarithmic height, unless there is nothing above 0 to show."""
    if any(value > 0 for line in axes.get_lines() for value in line.get_ydata()):
        axes.set_yscale("log", nonpositive="mask")
