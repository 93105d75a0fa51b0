"""A picture of a report: speed against the roofline, and the latency of every token of a run."""

from pathlib import Path

from rwkv_engine.bench.report import Report
from rwkv_engine.system.picture import two_panels


def plot(r: Report, path: str | Path) -> None:
    """Write a PNG. Raises as `two_panels`."""
    with two_panels(path) as (speeds, run):
        names = ["decode", *(f"prompt\n{length}" for length in r.prefill)]
        bars = speeds.bar(names, [r.decode, *r.prefill.values()])
        speeds.bar_label(bars, fmt="{:.0f}")
        speeds.axhline(r.bound, color="tab:red", linewidth=1)
        speeds.set_title(
            f"{r.model['name']}, {r.model['format']}; red: decoding at full bandwidth, {r.bound:.0f}",
            fontsize=10,
        )
        speeds.set_ylabel("tokens/s")
        run.plot([1e3 * seconds for seconds in r.latencies], linewidth=1)
        run.axhline(1e3 / r.bound, color="tab:red", linewidth=1)
        run.set_ylim(bottom=0)
        run.set_xlabel("token")
        run.set_ylabel("ms")
        run.set_title(
            f"{r.machine['processor']}, {r.machine['lanes']} lanes, {r.machine['level']}", fontsize=10
        )
