"""`Report`: the figures of one run, as a table, as JSON, and beside another run's."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rwkv_engine.errors import OptionError

#: version of the JSON's meaning
FORMAT = 1
#: a bandwidth that varied by more than this says that something else was running
NOISE = 0.15


@dataclass(frozen=True, slots=True)
class Report:
    """One run of `rwkv bench`.

    Speeds in tokens/s, times in seconds, memory in bytes, bandwidth in GB/s (10^9 bytes).

    bandwidth         reading memory with the same lanes.     bandwidth_spread  (largest - smallest) / median
                      of its trials.
    latencies         of the last trial's tokens, in order.   prefill           length of the prompt -> speed.
    ffn_zeros         share of hidden units that were zero, by layer.
    joules            of a decoded token, with all that the source covers; None where nothing could be read.
    energy            the source, or why there is none.
    drafts            what `bench.drafts` measured; None: nothing.
    The others are as `bench.process.Start` says, or plain.
    """

    format: int
    machine: dict[str, Any]
    model: dict[str, Any]
    bandwidth: float
    bandwidth_spread: float
    decode: float
    decode_trials: list[float]
    latency_p50: float
    latency_p95: float
    latencies: list[float]
    prefill: dict[str, float]
    first_token: float
    load: float
    peak: int | None
    private: int | None
    ffn_zeros: list[float]
    joules: float | None
    energy: str
    drafts: dict[str, float] | None = None

    @property
    def read(self) -> float:
        """GB/s of weights that decoding reads."""
        return self.decode * float(self.model["bytes_per_token"]) / 1e9

    @property
    def bound(self) -> float:
        """Tokens/s at which decoding would read the whole bandwidth."""
        return self.bandwidth * 1e9 / float(self.model["bytes_per_token"])

    def json(self) -> str:
        """One JSON object."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def of_file(cls, path: str | Path) -> "Report":
        """What `json` wrote. Raises OptionError for any other file."""
        try:
            found = json.loads(Path(path).read_text("utf-8"))
            report = cls(**found)
        except OSError as error:
            raise OptionError(f"{path}: {error.strerror or error}") from None
        except (ValueError, TypeError):
            raise OptionError(f"{path}: not what `rwkv bench --json` writes") from None
        if report.format != FORMAT:
            raise OptionError(
                f"{path}: a report of version {report.format}, this engine reads {FORMAT}; measure again"
            )
        return report


def rows(r: Report) -> Iterator[tuple[str, float | None, str]]:
    """(what, figure, unit) of all that can be compared."""
    yield "memory bandwidth", r.bandwidth, "GB/s"
    yield "decode", r.decode, "tokens/s"
    yield "  half of the tokens within", 1e3 * r.latency_p50, "ms"
    yield "  95 % of them within", 1e3 * r.latency_p95, "ms"
    yield "  weights read", r.read, "GB/s"
    yield "  share of the bandwidth", 100 * r.read / r.bandwidth, "%"
    if r.drafts is not None:
        yield "text that repeats", r.drafts["plain"], "tokens/s"
        yield "  with drafts", r.drafts["drafted"], "tokens/s"
        yield "  drafted tokens accepted", 100 * r.drafts["acceptance"], "%"
        yield "  tokens of a pass", r.drafts["tokens_per_pass"], ""
    for length, speed in r.prefill.items():
        yield f"prompt of {length}", speed, "tokens/s"
    yield "first token of rwkv generate", r.first_token, "s"
    yield "load", 1e3 * r.load, "ms"
    yield "most resident memory", None if r.peak is None else r.peak / 1e6, "MB"
    yield "  of it no file's", None if r.private is None else r.private / 1e6, "MB"
    yield "weights read for a token", float(r.model["bytes_per_token"]) / 1e6, "MB"
    yield "state", float(r.model["state_bytes"]) / 1e6, "MB"
    yield "energy of a decoded token", r.joules, "J"
    yield "zeros in the channel mix", 100 * sum(r.ffn_zeros) / len(r.ffn_zeros), "%"


def _title(r: Report) -> str:
    m, x = r.model, r.machine
    return (
        f"{m['name']}: {m['family']}, {m['layers']} layers of {m['width']}, {m['format']}\n"
        f"{x['processor']} ({x['architecture']}), {x['lanes']} of {x['cores']} cores, integer kernels: {x['level']}\n"
        f"rwkv-engine {x['rwkv-engine']}, numba {x['numba']}, llvmlite {x['llvmlite']}, numpy {x['numpy']}, "
        f"Python {x['python']}, {x['system']}"
    )


def _figure(value: float | None) -> str:
    return (
        "unknown"
        if value is None
        else f"{value:,.0f}"
        if value >= 1000
        else f"{value:.1f}"
        if value >= 10
        else f"{value:.2f}"
    )


def table(r: Report) -> str:
    """The report as a person reads it."""
    lines = [_title(r), ""]
    lines += [
        f"{what:<32}{_figure(value):>10} {unit if value is not None else ''}".rstrip()
        for what, value, unit in rows(r)
    ]
    low, high = min(r.ffn_zeros), max(r.ffn_zeros)
    lines[-1] += f" ({100 * low:.0f} to {100 * high:.0f} % by layer)"
    lines.append(f"Energy was read from {r.energy}." if r.joules is not None else r.energy)
    if r.read > r.bandwidth:
        lines.append("Decoding reads more than memory gives: these weights stay in the processor's caches.")
    if r.bandwidth_spread > NOISE:
        lines.append(
            f"The bandwidth varied by {100 * r.bandwidth_spread:.0f} % between trials: something else was running; measure again."
        )
    return "\n".join(lines)


def shared(r: Report) -> Report:
    """The report without what tells whose machine or file it was: no file name, no release of the system."""
    model = {**r.model, "name": f"{r.model['family']} {r.model['layers']} x {r.model['width']}"}
    return dataclasses.replace(
        r, model=model, machine={**r.machine, "system": str(r.machine["system"]).split()[0]}
    )


#: columns of a Markdown table of reports
COLUMNS = (
    "processor",
    "lanes",
    "level",
    "model",
    "format",
    "GB/s",
    "decode",
    "of the bandwidth",
    "longest prompt",
    "MB",
    "J/token",
)


def markdown_row(r: Report) -> str:
    """The report as a row under COLUMNS."""
    x, m = r.machine, r.model
    prompt = r.prefill[max(r.prefill, key=int)]
    name = f"{m['family']} {m['layers']} x {m['width']}"
    figures = (
        _figure(r.bandwidth),
        _figure(r.decode),
        f"{100 * r.read / r.bandwidth:.0f} %",
        _figure(prompt),
    )
    memory, joules = _figure(None if r.peak is None else r.peak / 1e6), _figure(r.joules)
    cells = (x["processor"], x["lanes"], x["level"], name, m["format"], *figures, memory, joules)
    return "| " + " | ".join(map(str, cells)) + " |"


def markdown_table(reports: Sequence[Report]) -> str:
    """All reports as a Markdown table, fastest decode first."""
    ordered = sorted(reports, key=lambda r: -r.decode)
    return "\n".join(
        ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|", *map(markdown_row, ordered)]
    )


def compared(r: Report, other: Report) -> str:
    """Both reports side by side, with the ratio of the first to the other."""
    theirs = {what: value for what, value, _ in rows(other)}
    lines = [
        "This run:",
        _title(r),
        "The other:",
        _title(other),
        "",
        f"{'':<32}{'this':>10}{'other':>10}{'ratio':>8}",
    ]
    for what, value, unit in rows(r):
        beside = theirs.get(what)
        ratio = f"{value / beside:.2f}" if value is not None and beside else ""
        lines.append(f"{what:<32}{_figure(value):>10}{_figure(beside):>10}{ratio:>8} {unit}")
    return "\n".join(lines)
