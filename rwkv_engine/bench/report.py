"""`Report`: the figures of one run, as a table, as JSON and as Markdown."""

import dataclasses
import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rwkv_engine.errors import OptionError
from rwkv_engine.numbers.sizes import size
from rwkv_engine.system.json_text import parsed_file

#: version of the JSON's meaning
FORMAT = 1
#: a bandwidth that varied by more than this says that something else was running
NOISE = 0.15


@dataclass(frozen=True, slots=True)
class Report:
    """One run of `rwkv bench`.

    Speeds in tokens/s, times in seconds, memory in bytes, bandwidth in GB/s (10^9 bytes).

    bandwidth         reading memory with the same threads.    bandwidth_spread  (largest - smallest) / median
                      of its trials.
    latencies         of the last trial's tokens, in order.   prefill           length of the prompt -> speed.
    ffn_zeros         share of hidden units that were zero, by layer.
    joules            of a decoded token, with all that the source covers; None where nothing could be read.
    energy            the source, or why there is none.
    drafts            what `bench.drafts` measured; None: nothing.
    prefill_trials    length of the prompt -> speeds; None: an earlier engine's report.
    date              of the run, such as 2026-01-31; None as well.
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
    prefill_trials: dict[str, list[float]] | None = None
    date: str | None = None

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
        """What `rwkv bench --json` wrote of one run. Raises OptionError for any other file."""
        found = cls.all_of_file(path)
        if len(found) != 1:
            raise OptionError(f"{path}: it has {len(found)} runs, want one")
        return found[0]

    @classmethod
    def all_of_file(cls, path: str | Path) -> "list[Report]":
        """The runs that `rwkv bench --json` or --share wrote. Raises OptionError for any other file."""
        try:
            found = parsed_file(Path(path))
            reports = [cls(**one) for one in (found if isinstance(found, list) else [found])]
            for report in reports:
                if "lanes" in report.machine:  # an earlier engine's word
                    report.machine["threads"] = report.machine.pop("lanes")
        except OSError as error:
            raise OptionError(f"{path}: {error.strerror or error}") from None
        except (ValueError, TypeError):
            raise OptionError(f"{path}: not what `rwkv bench --json` writes") from None
        for report in reports:
            if report.format != FORMAT:
                raise OptionError(
                    f"{path}: a report of version {report.format}, this engine reads {FORMAT}; measure again"
                )
        return reports


#: what a figure of a run depends on
_ALL = ("machine", "threads", "kernels", "model", "weights")


@dataclass(frozen=True, slots=True)
class Row:
    """One figure.

    spread   median absolute deviation of its trials; None where they are not known.
    better   1: more is better; -1: less is; 0: neither.
    depends  in what two runs must be alike for their figures to be compared.
    """

    what: str
    value: float | None
    unit: str
    better: int = 0
    spread: float | None = None
    depends: tuple[str, ...] = _ALL


def rows(r: Report) -> Iterator[Row]:
    """All that can be compared."""
    trials, decode = r.prefill_trials or {}, spread(r.decode_trials)
    latencies = [1e3 * seconds for seconds in r.latencies]
    file = ("model", "weights")
    yield Row("memory bandwidth", r.bandwidth, "GB/s", 1, depends=("machine", "threads"))
    yield Row("decode", r.decode, "tokens/s", 1, decode)
    yield Row("  half of the tokens within", 1e3 * r.latency_p50, "ms", -1, spread(latencies))
    yield Row("  95 % of them within", 1e3 * r.latency_p95, "ms", -1)
    yield Row("  weights read", r.read, "GB/s", 1)
    yield Row("  share of the bandwidth", 100 * r.read / r.bandwidth, "%", 1)
    if r.drafts is not None:
        yield Row("text that repeats", r.drafts["plain"], "tokens/s", 1)
        yield Row("  with drafts", r.drafts["drafted"], "tokens/s", 1)
        yield Row("  drafted tokens accepted", 100 * r.drafts["acceptance"], "%")
        yield Row("  tokens of a pass", r.drafts["tokens_per_pass"], "")
    for length, speed in r.prefill.items():
        yield Row(f"prompt of {length}", speed, "tokens/s", 1, spread(trials.get(length, ())))
    yield Row("first token of rwkv generate", r.first_token, "s", -1)
    yield Row("load", 1e3 * r.load, "ms", -1)
    yield Row("most resident memory", None if r.peak is None else r.peak / 1e6, "MB", -1)
    yield Row("  of it not from files", None if r.private is None else r.private / 1e6, "MB", -1)
    yield Row("weights read for a token", float(r.model["bytes_per_token"]) / 1e6, "MB", -1, depends=file)
    yield Row("  of it skipped for zeros", float(r.model.get("skipped_bytes", 0)) / 1e6, "MB", depends=file)
    yield Row("state", float(r.model["state_bytes"]) / 1e6, "MB", -1, depends=("model",))
    yield Row("energy of a decoded token", r.joules, "J", -1)
    zeros = 100 * sum(r.ffn_zeros) / len(r.ffn_zeros)
    yield Row("zeros in the channel mix", zeros, "%", depends=file)


def spread(trials: Sequence[float]) -> float | None:
    """Median absolute deviation; None for fewer than two trials."""
    if len(trials) < 2:
        return None
    middle = statistics.median(trials)
    return statistics.median(abs(value - middle) for value in trials)


def title(r: Report) -> str:
    """Model, machine, versions and date, in three lines."""
    m, x = r.model, r.machine
    name = "" if m["name"] == _unnamed(m) else f"{m['name']}: "
    return (
        f"{name}{m['family']}, {_sizes(m)}{m['layers']} layers of {m['width']}, {m['format']}\n"
        f"{x['processor']} ({x['architecture']}), {x['threads']} thread{'s' * (x['threads'] != 1)} on {x['cores']} cores, integer kernels: {x['level']}\n"
        f"rwkv-engine {x['rwkv-engine']}, numba {x['numba']}, llvmlite {x['llvmlite']}, numpy {x['numpy']}, "
        f"Python {x['python']}, {x['system']}{f', {r.date}' if r.date else ''}"
    )


def _sizes(model: dict[str, Any]) -> str:
    """Parameters and size of the file, where the report tells them."""
    if "parameters" not in model:
        return ""
    count = model["parameters"]
    many = f"{count / 1e9:.2f} billion" if count >= 1e9 else f"{count / 1e6:.1f} million"
    return f"{many} parameters in a file of {size(model['file_bytes'])}, "


def figure(value: float | None) -> str:
    """A number as people read it."""
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
    lines = [title(r), ""]
    for row in rows(r):
        around = f"± {figure(row.spread)}" if row.spread is not None else ""
        unit = row.unit if row.value is not None else ""
        lines.append(f"{row.what:<32}{figure(row.value):>10} {unit:<9} {around}".rstrip())
    lines.append("± is the median deviation of the trials; for the times of tokens, that of the tokens.")
    return "\n".join([*lines, *notes(r)])


def notes(r: Report) -> list[str]:
    """What is to be known about the figures, a line each."""
    low, high = min(r.ffn_zeros), max(r.ffn_zeros)
    lines = [f"Zeros in the channel mix by layer: {100 * low:.0f} to {100 * high:.0f} %."]
    lines.append(f"Energy was read from {r.energy}." if r.joules is not None else r.energy)
    if r.read > r.bandwidth:
        lines.append("Decoding reads more than memory gives: these weights stay in the processor's caches.")
    if r.bandwidth_spread > NOISE:
        lines.append(
            f"The bandwidth varied by {100 * r.bandwidth_spread:.0f} % between trials: something else was running; measure again."
        )
    return lines


def shared(r: Report) -> Report:
    """The report without what tells whose machine or file it was: no file name, no release of the system."""
    model = {**r.model, "name": _unnamed(r.model)}
    return dataclasses.replace(
        r, model=model, machine={**r.machine, "system": str(r.machine["system"]).split()[0]}
    )


def _unnamed(model: dict[str, Any]) -> str:
    """What a model is called where its file's name is not told."""
    return f"{model['family']} {model['layers']} x {model['width']}"


#: columns of a Markdown table of reports
COLUMNS = (
    "processor",
    "threads",
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
        figure(r.bandwidth),
        figure(r.decode),
        f"{100 * r.read / r.bandwidth:.0f} %",
        figure(prompt),
    )
    memory, joules = figure(None if r.peak is None else r.peak / 1e6), figure(r.joules)
    cells = (x["processor"], x["threads"], x["level"], name, m["format"], *figures, memory, joules)
    return "| " + " | ".join(map(str, cells)) + " |"


def markdown_table(reports: Sequence[Report]) -> str:
    """All reports as a Markdown table, fastest decode first."""
    ordered = sorted(reports, key=lambda r: -r.decode)
    return "\n".join(
        ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|", *map(markdown_row, ordered)]
    )


def markdown(reports: Sequence[Report]) -> str:
    """Reports to paste into an issue: a table of a row for each, and a line with versions and date.

    It names neither file nor machine.
    """
    return f"{markdown_table(reports)}\n\n{title(shared(reports[0])).splitlines()[-1]}"


def beside_one_another(reports: Sequence[Report]) -> list[tuple[str, ...]]:
    """Several runs of one model on one machine: titles, and a row of figures for each run."""
    lengths = list(reports[0].prefill)
    heads = ("weights", "threads", "decode", *(f"prompt of {length}" for length in lengths), "MB")
    found = [heads, ("", "", *["tokens/s"] * (1 + len(lengths)), "at most")]
    for r in reports:
        trials = r.prefill_trials or {}
        speeds = [_around(r.prefill[length], trials.get(length, ())) for length in lengths]
        memory = figure(None if r.peak is None else r.peak / 1e6)
        decode = _around(r.decode, r.decode_trials)
        found.append((str(r.model["format"]), str(r.machine["threads"]), decode, *speeds, memory))
    return found


def _around(value: float, trials: Sequence[float]) -> str:
    """A figure with the spread of its trials."""
    around = spread(trials)
    return figure(value) + ("" if around is None else f" ± {figure(around)}")
