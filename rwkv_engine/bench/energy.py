"""Joules that a piece of work takes, where Linux lets them be read: counters of the processor, sensors of the
board, or a battery.

powercap  energy counters of whole processors (RAPL; Intel, AMD from Zen on). They often belong to root.
hwmon     energy counters of sockets (amd_energy), or INA power sensors of a board, sampled.
battery   the power that a discharging battery gives, sampled: everything that the machine does is in it, the
          display too.
The first of these that can be read is used. On other systems there is none.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rwkv_engine.system.threads import started

#: seconds between two samples of a power, and the shortest work that a few of them can tell about
SAMPLE, SHORTEST = 0.05, 0.5
NOTHING = "energy: none could be read (no powercap counter, no hwmon sensor, no discharging battery"


@dataclass(frozen=True, slots=True)
class Energy:
    """What a piece of work took.

    joules   of everything that the source covers, other programs' included.
    source   where it was read, for people: "powercap package-0".
    seconds  how long the work was.
    """

    joules: float
    source: str
    seconds: float


@dataclass(frozen=True, slots=True)
class _Counter:
    """A count of microjoules that starts again at `wrap` (0: never)."""

    path: Path
    wrap: int


@dataclass(frozen=True, slots=True)
class _Source:
    """Counters that are added up, or a power in watts that has to be sampled."""

    name: str
    counters: tuple[_Counter, ...] = ()
    watts: Callable[[], float | None] | None = None


class Meter:
    """Measures one piece of work after another: `start()`, work, `stop()`.

    root  the folder in which Linux's classes of devices lie.
    """

    __slots__ = ("_began", "_done", "_hidden", "_sampler", "_samples", "_source", "_values")

    def __init__(self, root: Path = Path("/sys/class")) -> None:
        self._hidden: list[Path] = []
        self._source = _powercap(root, self._hidden) or _hwmon(root, self._hidden) or _battery(root)
        self._began = 0.0
        self._values: list[int | None] = []
        self._samples: list[float] = []
        self._done = threading.Event()
        self._sampler: threading.Thread | None = None

    def start(self) -> None:
        """Begin a measurement; one that was begun before is forgotten."""
        self._finish_sampling()
        self._began = time.monotonic()
        if self._source is None:
            return
        self._values = [_number(counter.path) for counter in self._source.counters]
        if self._source.watts is not None:
            self._samples, self._done = [], threading.Event()
            self._sampler = started(self._sample, self._source.watts, self._done, name="rwkv-energy")

    def stop(self) -> Energy | str:
        """End it: what the work took, or a sentence that says why that cannot be told."""
        seconds = time.monotonic() - self._began
        self._finish_sampling()
        if self._source is None:
            hidden = f"; {self._hidden[0]} may only be read by root" if self._hidden else ""
            return f"{NOTHING}{hidden})"
        if self._source.watts is None:
            joules = self._counted()
            return self._lost() if joules is None else Energy(joules, self._source.name, seconds)
        if not self._samples:
            return self._lost()
        if seconds < SHORTEST:
            return f"energy: {self._source.name} is sampled, and {seconds:.2f} s are too short for it"
        return Energy(sum(self._samples) / len(self._samples) * seconds, self._source.name, seconds)

    def _lost(self) -> str:
        return f"energy: {self._source.name if self._source else 'it'} stopped telling while it was measured"

    def _counted(self) -> float | None:
        """Joules since start() by all counters; None if one cannot be read any more."""
        total = 0
        assert self._source is not None
        for counter, before in zip(self._source.counters, self._values, strict=True):
            now = _number(counter.path)
            if now is None or before is None or (now < before and not counter.wrap):
                return None
            total += now - before if now >= before else now + counter.wrap - before
        return total / 1e6

    def _sample(self, watts: Callable[[], float | None], done: threading.Event) -> None:
        while True:
            value = watts()
            if value is not None:
                self._samples.append(value)
            if done.wait(SAMPLE):
                return

    def _finish_sampling(self) -> None:
        if self._sampler is not None:
            self._done.set()
            self._sampler.join()
            self._sampler = None


def _powercap(root: Path, hidden: list[Path]) -> _Source | None:
    """The counters of all processor packages; parts of a package, such as its cores, are in it already."""
    zones = [
        zone
        for zone in sorted((root / "powercap").glob("*-rapl:*"))
        if zone.name.count(":") == 1 and "mmio" not in zone.name
    ]
    zones = [zone for zone in zones if _text(zone / "name").startswith("package")]
    counters = [_Counter(zone / "energy_uj", _number(zone / "max_energy_range_uj") or 0) for zone in zones]
    names = ", ".join(_text(zone / "name") for zone in zones)
    return _all_readable(f"powercap {names}", counters, hidden)


def _hwmon(root: Path, hidden: list[Path]) -> _Source | None:
    """The sockets' energy counters; else the first INA sensor's power."""
    devices = sorted((root / "hwmon").glob("hwmon*"))
    for device in devices:
        inputs = sorted(device.glob("energy*_input"))
        sockets = [
            path
            for path in inputs
            if "socket" in _text(path.with_name(path.name.replace("_input", "_label"))).lower()
        ]
        found = _all_readable(
            f"hwmon {_text(device / 'name')}", [_Counter(path, 0) for path in sockets or inputs], hidden
        )
        if found is not None:
            return found
    for device in devices:
        if _text(device / "name").startswith("ina"):
            for path in sorted(device.glob("power*_input")):
                if _number(path) is not None:
                    return _Source(
                        f"hwmon {_text(device / 'name')} {path.stem.removesuffix('_input')}",
                        watts=partial(_scaled, path),
                    )
    return None


def _battery(root: Path) -> _Source | None:
    """A battery that gives power now."""
    for supply in sorted((root / "power_supply").glob("*")):
        if _text(supply / "type") != "Battery" or _text(supply / "status") != "Discharging":
            continue
        if _number(supply / "power_now") is not None:
            return _Source(f"battery {supply.name}", watts=partial(_scaled, supply / "power_now"))
        if _number(supply / "current_now") is not None and _number(supply / "voltage_now") is not None:
            return _Source(
                f"battery {supply.name}",
                watts=partial(_product, supply / "current_now", supply / "voltage_now"),
            )
    return None


def _all_readable(name: str, counters: list[_Counter], hidden: list[Path]) -> _Source | None:
    """A source, if there are counters and all can be read; those that are there and cannot go to `hidden`."""
    closed = [counter.path for counter in counters if _number(counter.path) is None]
    hidden += closed
    return _Source(name, tuple(counters)) if counters and not closed else None


def _scaled(path: Path) -> float | None:
    """Watts from a file with microwatts."""
    value = _number(path)
    return None if value is None else abs(value) / 1e6


def _product(current: Path, voltage: Path) -> float | None:
    """Watts from microamperes and microvolts."""
    amperes, volts = _number(current), _number(voltage)
    return None if amperes is None or volts is None else abs(amperes) * volts / 1e12


def _number(path: Path) -> int | None:
    """The whole number in a small file; None if there is none or it cannot be read."""
    text = _text(path)
    return int(text) if text.lstrip("-").isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
