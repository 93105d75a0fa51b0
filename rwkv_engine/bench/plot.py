"""A picture of runs: decoding and reading prompts, each with its bound, and the latency along the run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rwkv_engine.bench.report import Report, figure, title
from rwkv_engine.numbers.shapes import CHUNK
from rwkv_engine.system.picture import figure as drawing

#: inches, and what runs and bounds are drawn in; legible on a light and on a dark ground
SIZE = (10.0, 5.6)
COLORS = ("#3b82f6", "#f59e0b", "#10b981", "#ec4899", "#8b5cf6", "#64748b")
BOUND = "#ef4444"
#: the least distance of two labels, as a share of the height of the axes
GAP = 0.09


def plot(reports: Sequence[Report], path: str | Path, dark: bool = False) -> None:
    """Write a PNG of one run or of several of one model. Raises as `system.picture.figure`."""
    first = reports[0]
    with drawing(path, SIZE, dark) as picture:
        model, machine, versions = title(first).split("\n")
        engine = versions.split(",")[0]
        picture.suptitle(model if len(reports) == 1 else model.rpartition(",")[0], fontsize=13, weight="bold")
        top, below = picture.subfigures(2, 1, height_ratios=(1.15, 1))
        decode, prompt = top.subplots(1, 2, width_ratios=(1, 1.25))
        _decode(decode, reports)
        _prompt(prompt, reports)
        _latency(below.subplots(), reports)
        date = f", {first.date}" if first.date else ""
        machine = machine if len(reports) == 1 else machine.partition(")")[0] + ")"
        picture.supxlabel(f"{machine}; {engine}{date}", fontsize=8)


def bound_of_prompt(r: Report, length: int) -> float:
    """Tokens/s at which reading the weights, once for each pass of a prompt, would take the whole bandwidth."""
    return r.bound * length / -(-length // CHUNK)


def _decode(axes: Any, reports: Sequence[Report]) -> None:
    """A bar for each run, and a mark where its bound is."""
    for place, (r, color) in enumerate(zip(reports, _colors(reports), strict=True)):
        axes.barh(place, r.decode, color=color, height=0.55)
        axes.plot([r.bound] * 2, [place - 0.38, place + 0.38], color=BOUND, linewidth=2)
        inside = r.decode > 0.2 * _most(reports)  # else there is no room for the figure
        start, ink = 0.0 if inside else r.decode, "white" if inside else color
        axes.text(
            start + 0.02 * _most(reports), place, figure(r.decode), va="center", color=ink, weight="bold"
        )
    axes.set_yticks(range(len(reports)), [_name(r, reports) for r in reports])
    axes.set_ylim(len(reports) - 0.4, -0.6)
    axes.set_xlim(0, 1.08 * _most(reports))
    axes.xaxis.set_major_formatter(lambda value, place: f"{value:,.5g}")
    axes.set_title("decode, tokens/s", loc="left", fontsize=10)
    bound = f" ({figure(reports[0].bound)})" if len(reports) == 1 else ""
    _note(axes, f"red: the memory's bandwidth used up{bound}")


def _prompt(axes: Any, reports: Sequence[Report]) -> None:
    """A line for each run over the length of the prompt, with its bound."""
    labels = []
    for r, color in zip(reports, _colors(reports), strict=True):
        lengths = sorted(map(int, r.prefill))
        speeds = [r.prefill[str(length)] for length in lengths]
        bounds = [bound_of_prompt(r, length) for length in lengths]
        axes.plot(lengths, speeds, color=color, marker="o", markersize=4)
        axes.plot(lengths, bounds, color=BOUND, linewidth=1, linestyle=":")
        for length, speed in zip(lengths[:-1], speeds, strict=False):
            if len(reports) == 1:
                _above(axes, figure(speed), (length, speed), color)
        labels += [(speeds[-1], figure(speeds[-1]), color), (bounds[-1], figure(bounds[-1]), BOUND)]
    lengths = sorted({int(length) for r in reports for length in r.prefill})
    axes.set_xscale("log", base=2)
    axes.set_xticks(lengths, lengths)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, place: f"{value:,.0f}")
    axes.minorticks_off()
    axes.margins(y=0.25)
    _beside(axes, labels)
    axes.set_title("prompt, tokens/s by its length", loc="left", fontsize=10)
    _note(axes, f"red: the weights read once for each {CHUNK} tokens, at full bandwidth")


def _latency(axes: Any, reports: Sequence[Report]) -> None:
    """Milliseconds of each token of the last trial, with the percentiles of all of them."""
    longest = max(len(r.latencies) for r in reports)
    labels = []
    for r, color in zip(reports, _colors(reports), strict=True):
        half, most = 1e3 * r.latency_p50, 1e3 * r.latency_p95
        axes.plot([1e3 * seconds for seconds in r.latencies], color=color, linewidth=1)
        axes.axhline(half, color=color, linewidth=0.8, alpha=0.6)
        axes.axhline(most, color=color, linewidth=0.8, linestyle="--", alpha=0.6)
        labels.append((half, f"{figure(half)}, {figure(most)}", color))
    axes.set_ylim(0, 1.12e3 * max(max(r.latency_p95, *r.latencies) for r in reports))
    axes.set_xlim(0, longest)
    axes.set_xlabel("token of the last trial", fontsize=9)
    axes.set_title(
        "latency of a token, ms; at the right: half of the tokens within, 95 % within",
        loc="left",
        fontsize=10,
    )
    _beside(axes, labels)
    _bare(axes)


def _above(axes: Any, text: str, place: tuple[float, float], color: str) -> None:
    """A text above a place."""
    axes.annotate(
        text, place, (0, 6), textcoords="offset points", ha="center", va="bottom", fontsize=8, color=color
    )


def _beside(axes: Any, labels: Sequence[tuple[float, str, str]]) -> None:
    """Texts right of the axes at their heights, moved apart where they would lie on one another.

    labels  (height, text, color); the axes have their limits already.
    """
    place = axes.transScale + axes.transLimits
    free = -GAP
    for height, text, color in sorted(set(labels)):
        at = place.transform((axes.get_xlim()[1], height))[1]
        free = max(at, free + GAP)
        axes.text(1.01, free, text, transform=axes.transAxes, ha="left", va="center", fontsize=8, color=color)


def _note(axes: Any, text: str) -> None:
    axes.text(0, -0.24, text, transform=axes.transAxes, fontsize=8, color=BOUND)
    _bare(axes)


def _bare(axes: Any) -> None:
    """No frame but the two axes."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def _name(r: Report, reports: Sequence[Report]) -> str:
    """What tells a run from the others."""
    threads = r.machine["threads"]
    return f"{r.model['format']}\n{threads} thread{'s' * (threads != 1)}"


def _colors(reports: Sequence[Report]) -> list[str]:
    return [COLORS[number % len(COLORS)] for number in range(len(reports))]


def _most(reports: Sequence[Report]) -> float:
    return max(max(r.decode, r.bound) for r in reports)
