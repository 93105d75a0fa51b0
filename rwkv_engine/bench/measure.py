"""`measure`: one run of everything, the trials of all figures taking turns so that they see the same machine."""

import math
import platform
import statistics
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

from rwkv_engine.bench.bandwidth import block, read_rates
from rwkv_engine.bench.drafts import check, with_drafts
from rwkv_engine.bench.energy import Energy, Meter
from rwkv_engine.bench.process import start_of
from rwkv_engine.bench.report import FORMAT, Report
from rwkv_engine.bench.sparsity import ffn_zeros, skippable_bytes
from rwkv_engine.bench.speed import Runner
from rwkv_engine.errors import OptionError
from rwkv_engine.kernels.int8_levels import chosen
from rwkv_engine.loading import load
from rwkv_engine.model import CHUNK, Model
from rwkv_engine.system import cpu, pages

#: what the channel mix is fed to count its zeros: plain English, whatever the model
TEXT = (
    "The river came down from the hills in spring, brown and quick, and carried branches, leaves and once a small blue boat. "
    "Nobody knew whose it was. The children tied it to a post by the bridge, and every morning they went to see if it was there."
)
Tell = Callable[[str], None]


def measure(
    source: str | None = None,
    weights: str | None = None,
    threads: int | None = None,
    *,
    tokens: int = 64,
    prompts: Sequence[int] = (16, 64, 256, 512),
    trials: int = 5,
    draft: str | None = None,
    tell: Tell = lambda line: None,
) -> Report:
    """Measure a model on this machine.

    source, weights, threads  as for `load`.
    tokens    decoded in each trial.       prompts   lengths of prompts to read.
    trials    of each figure, after a warm-up; figures are medians over them.
    draft     also measure drafts: "ngram", or the source of a small model, which is loaded as `weights` and
              `threads` say.
    tell      is told, in a word, what is being measured.
    Raises    OptionError, and what `load` raises.
    """
    if tokens < 1 or trials < 1 or not prompts or min(prompts) < 1:
        raise OptionError("bench: want at least one token, one trial, and prompts of one token or more")
    tell("loading")
    model = load(source, weights, threads)
    drafts = draft if draft is None or draft == "ngram" else load(draft, weights, threads)
    check(drafts, model)
    tell("compiling and warming up")
    runner, data = Runner(model), block(pages.available() or None)
    rates: list[float] = []
    meter, energies = Meter(), []
    decodes, prefills = [], {length: [] for length in prompts}  # type: ignore[var-annotated]
    for trial in range(trials):
        tell(f"trial {trial + 1} of {trials}")
        rates += read_rates(model.lanes, data, 3)
        meter.start()
        decodes.append(runner.decode(tokens))
        energies.append(meter.stop())
        for length in prompts:
            prefills[length].append(length / runner.prefill(length))
    latencies = sorted(seconds for decode in decodes for seconds in decode.latencies)
    written = None
    if drafts is not None:
        tell("drafts")
        written = with_drafts(model, drafts, tokens, trials)
    tell("zeros of the channel mix")
    zeros = ffn_zeros(model.checkpoint, weights, model.tokenizer.encode(TEXT)[:CHUNK])
    tell("starting the engine again")
    start = start_of(source, weights, threads, min(trials, 3))
    return Report(
        format=FORMAT,
        machine=_machine(model),
        model=_model(model, statistics.mean(zeros)),
        bandwidth=statistics.median(rates),
        bandwidth_spread=(max(rates) - min(rates)) / statistics.median(rates),
        decode=statistics.median(decode.speed for decode in decodes),
        decode_trials=[decode.speed for decode in decodes],
        latency_p50=_at(latencies, 0.5),
        latency_p95=_at(latencies, 0.95),
        latencies=decodes[-1].latencies,
        prefill={str(length): statistics.median(speeds) for length, speeds in prefills.items()},
        first_token=start.first_token,
        load=start.load,
        peak=start.peak,
        private=start.private,
        ffn_zeros=zeros,
        joules=_joules(energies, tokens),
        energy=energies[-1].source if isinstance(energies[-1], Energy) else energies[-1],
        drafts=written,
        prefill_trials={str(length): speeds for length, speeds in prefills.items()},
        date=f"{datetime.now(timezone.utc):%Y-%m-%d}",
    )


def _joules(energies: Sequence[Energy | str], tokens: int) -> float | None:
    """Median joules of a token; None if any trial could not be told."""
    known = [energy.joules / tokens for energy in energies if isinstance(energy, Energy)]
    return statistics.median(known) if len(known) == len(energies) else None


def _at(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _machine(model: Model) -> dict[str, str | int]:
    return {
        "processor": cpu.name(),
        "architecture": platform.machine(),
        "cores": cpu.physical_cores(),
        "threads": model.lanes,
        "level": chosen(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{package: version(package) for package in ("rwkv-engine", "numba", "llvmlite", "numpy")},
    }


def _file_bytes(path: Path) -> int:
    """Of a model's file, or of all files of its folder."""
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _model(model: Model, zeros: float) -> dict[str, str | int]:
    c, skipped = model.config, round(zeros * skippable_bytes(model.checkpoint, model.format))
    return {
        "name": model.checkpoint.path.name,
        "family": f"RWKV-{c.version}",
        "layers": c.layers,
        "width": c.width,
        "vocabulary": c.vocab,
        "format": model.format,
        "parameters": sum(math.prod(tensor.shape) for tensor in model.checkpoint.tensors.values()),
        "file_bytes": _file_bytes(model.checkpoint.path),
        "bytes_per_token": model.weight_bytes - skipped,
        "skipped_bytes": skipped,
        "state_bytes": model.new_state().block.nbytes,
    }
