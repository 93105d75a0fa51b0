"""What can only be measured in a process of its own: time to the first token, time to load, and memory."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from rwkv_engine.errors import EngineError

#: the command line of the engine, as a process
RWKV = (sys.executable, "-m", "rwkv_engine_cli.app")

_LOAD = """
import json, sys, time
import numpy, rwkv_engine, rwkv_engine.loading
from rwkv_engine.system import pages
source, weights, threads, tokens = json.loads(sys.argv[1])
start = time.perf_counter()
model = rwkv_engine.load(source, weights, threads)
loaded = time.perf_counter() - start
state = model.new_state()
for token in range(1, tokens + 1):
    model.feed([token], state)
print(json.dumps([loaded, pages.peak() or None, pages.private() or None]))
"""


@dataclass(frozen=True, slots=True)
class Start:
    """Medians over the trials.

    first_token  seconds from the start of `rwkv generate` to its first token, compile cache warm.
    load         seconds of `load()`, the package being imported and the file in the page cache.
    peak, private  bytes, after writing some tokens: most resident memory, and what of it is no file's; None
                   where the system does not say.
    """

    first_token: float
    load: float
    peak: int | None
    private: int | None


def start_of(source: str | None, weights: str | None, threads: int | None, trials: int) -> Start:
    """Start the engine again and again; a first time is not counted.

    Raises EngineError with the reason if it does not start.
    """
    first = [_first_token(source, weights, threads) for _ in range(trials + 1)][1:]
    loads = [
        json.loads(_run((sys.executable, "-c", _LOAD, json.dumps([source, weights, threads, 32]))))
        for _ in range(trials)
    ]
    peak, private = loads[-1][1:]
    return Start(statistics.median(first), statistics.median(load for load, *_ in loads), peak, private)


def peak_of(source: str | None, weights: str | None, threads: int | None) -> int | None:
    """The most resident memory, in bytes, of a process that loads a model and feeds it some tokens; None
    where the system does not say.
    """
    given = json.dumps([source, weights, threads, 32])
    peak = json.loads(_run((sys.executable, "-c", _LOAD, given)))[1]
    return None if peak is None else int(peak)


def _first_token(source: str | None, weights: str | None, threads: int | None) -> float:
    """Seconds until the first line of `rwkv generate --json`."""
    given = {"--model": source, "--weights": weights, "--threads": threads}
    options = [part for name, value in given.items() if value is not None for part in (name, str(value))]
    command = [*RWKV, "generate", "Once", "--max-tokens", "1", "--temperature", "0", "--json", *options]
    start = time.perf_counter()
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stderr
        line = process.stdout.readline()
        seconds = time.perf_counter() - start
        if not line:
            raise EngineError(f"rwkv generate did not start: {process.stderr.read().strip()[-300:]}")
    return seconds


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise EngineError(
            f"a process that loads the model ended with {done.returncode}: {done.stderr.strip()[-300:]}"
        )
    return done.stdout
