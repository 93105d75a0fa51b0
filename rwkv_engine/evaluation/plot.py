"""A picture of rows: quality against bytes a token, and quality along the text."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rwkv_engine.evaluation.report import Row
from rwkv_engine.system.picture import two_panels


def plot(rows: Sequence[Row], path: str | Path) -> None:
    """Write a PNG. Raises as `two_panels`."""
    with two_panels(path) as (trade, way):
        _trade(trade, rows)
        _way(way, rows)


def _name(row: Row) -> str:
    return f"{row.model.removesuffix('.safetensors')} {row.format}"


def _trade(axes: Any, rows: Sequence[Row]) -> None:
    """A point for each row: bits a byte, or without a text the share of right answers of the first task."""
    texts = all(row.bits_per_byte is not None for row in rows)
    for row in rows:
        value = row.bits_per_byte if texts else row.tasks[0].accuracy
        axes.errorbar(
            row.bytes_per_token / 1e6, value, yerr=row.bits_per_byte_error if texts else None, fmt="o"
        )
        axes.annotate(_name(row), (row.bytes_per_token / 1e6, value), fontsize=8)
    axes.set_xlabel("MB of weights read for a token")
    axes.set_ylabel("bits a byte" if texts else f"right of {rows[0].tasks[0].name}")


def _way(axes: Any, rows: Sequence[Row]) -> None:
    """A line for each row: divergence from the reference, or without one bits a byte, along the first text."""
    compared = any(row.against is not None for row in rows)
    figure = "kl_mean" if compared else "bits_per_byte"
    for row in rows:
        for text in row.texts[:1]:
            places = [step["tokens"] for step in text["along"]]
            axes.plot(places, [step[figure] for step in text["along"]], label=_name(row), linewidth=1)
    axes.set_xlabel("tokens read")
    axes.set_ylabel("mean KL, nats" if compared else "bits a byte")
    if any(row.texts for row in rows):
        axes.legend(fontsize=8)
    if compared:
        axes.set_yscale("log", nonpositive="mask")
