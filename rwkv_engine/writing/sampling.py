"""`Sampling`: how the next token is chosen, in the order of PyPI's `rwkv` 0.8.32.

For each token (PIPELINE.generate and PIPELINE.sample_logits of that package):
1. the caller's processors see the logits; 2. biases are added and banned tokens are removed;
3. tokens that were written before pay `presence + count * frequency`; 4. softmax;
5. top-p, top-k and min-p each look at these probabilities and remove tokens;
6. what is left is raised to the power 1 / temperature, and a token is drawn.
After each token all counts are multiplied by `decay`. Then the count of the new token grows by one. Tokens
that are white space or digits do not count: they pay `presence` and no `frequency`.
Processors, biases and min-p are not in that package; everything else gives its numbers. `choosing` does the
work.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from rwkv_engine.errors import OptionError

if TYPE_CHECKING:  # the command reads the fields below for its help, which is not to wait for numpy
    import numpy as np

    from rwkv_engine.writing.history import History

#: changes logits [V] float32: gets a copy and what was written so far, returns as many numbers
Processor = Callable[["np.ndarray", "History"], "np.ndarray"]

#: a bias beyond this is a mistake, and would overflow float32 with others
LARGEST_BIAS = 1e9


def _number(default: float, low: float, high: float, help: str) -> Any:
    """A field that takes a number from `low` to `high`."""
    return field(default=default, metadata={"low": low, "high": high, "help": help})


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen. The numbers' ranges stand below.

    temperature  0 takes the likeliest token.
    top_p        keep the likeliest tokens that together have this probability; 1 keeps all.
    top_k        keep this many of the likeliest tokens; 0 keeps all.
    min_p        drop tokens below this share of the likeliest token's probability; 0 drops none.
    presence     penalty for a token that was written before.
    frequency    penalty for each time that it was written.
    decay        factor of all counts after each token.
    banned       ids that are never chosen.
    bias         numbers added to logits: pairs (token id, number), or a dict.
    seed         the same seed gives the same tokens; None: other tokens each time.
    processors   functions of your own that change the logits before anything else does.
    Raises       OptionError for a value that makes no sense.
    """

    temperature: float = _number(1.0, 0.0, 100.0, "0 always takes the likeliest token; higher is wilder.")
    top_p: float = _number(0.85, 0.0, 1.0, "Keep the likeliest tokens that together have this probability.")
    top_k: int = field(default=0, metadata={"help": "Keep this many of the likeliest tokens; 0 keeps all."})
    min_p: float = _number(
        0.0, 0.0, 1.0, "Drop tokens below this share of the likeliest token's probability."
    )
    presence: float = _number(0.0, -100.0, 100.0, "Penalty for tokens that were written before.")
    frequency: float = _number(0.0, -100.0, 100.0, "Penalty for each time that a token was written.")
    decay: float = _number(0.996, 0.0, 1.0, "Factor of the penalties' counts after each token.")
    bias: tuple[tuple[int, float], ...] = field(
        default=(), metadata={"help": "ID=NUMBER, added to a token's logit; can be repeated."}
    )
    banned: tuple[int, ...] = field(
        default=(), metadata={"help": "Token id that is never written; can be repeated.", "option": "ban"}
    )
    seed: int | None = field(default=None, metadata={"help": "The same seed gives the same text."})
    processors: tuple[Processor, ...] = ()

    def __post_init__(self) -> None:
        for name, meta in (
            (f, f.metadata) for f in self.__dataclass_fields__.values() if "low" in f.metadata
        ):
            value = getattr(self, name.name)
            if not _is_real(value) or not meta["low"] <= value <= meta["high"]:
                raise OptionError.of(name.name, value, f"a number from {meta['low']:g} to {meta['high']:g}")
            object.__setattr__(self, name.name, float(value))
        object.__setattr__(self, "top_k", _whole("top_k", self.top_k))
        if self.seed is not None:
            object.__setattr__(self, "seed", _whole("seed", self.seed))
        object.__setattr__(self, "bias", _biases(self.bias))
        object.__setattr__(
            self, "banned", tuple(_whole("banned", token) for token in _listed("banned", self.banned))
        )
        object.__setattr__(self, "processors", tuple(_listed("processors", self.processors)))
        if not all(callable(processor) for processor in self.processors):
            raise OptionError("processors: want functions of (logits, history) that return logits")

    @classmethod
    def preset(cls, name: str) -> "Sampling":
        """The sampling that the community calls `name`. Raises OptionError, with the names there are."""
        if name not in PRESETS:
            raise OptionError.of("preset", name, f"one of {', '.join(PRESETS)}")
        return PRESETS[name]


def _is_real(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _whole(name: str, value: object) -> int:
    """A whole number, 0 or more, also one of NumPy's."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 0:
        raise OptionError.of(name, value, "a whole number, 0 or more")
    return int(value)


def _listed(name: str, value: object) -> Sequence[Any]:
    if value is None:
        return ()
    if isinstance(value, (str, bytes)) or not (isinstance(value, Sequence) or hasattr(value, "__array__")):
        raise OptionError.of(name, value, "a list")
    return value  # type: ignore[return-value]


def _biases(value: object) -> tuple[tuple[int, float], ...]:
    """Pairs, from pairs or a mapping."""
    pairs = list(value.items()) if isinstance(value, Mapping) else list(_listed("bias", value))
    found = []
    for pair in pairs:
        if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2 or not _is_real(pair[1]):
            raise OptionError.of("bias", pair, "a token id and a finite number", "ban a token to remove it")
        if abs(pair[1]) > LARGEST_BIAS:
            raise OptionError.of("bias", pair[1], f"a number from {-LARGEST_BIAS:g} to {LARGEST_BIAS:g}")
        found.append((_whole("bias", pair[0]), float(pair[1])))
    return tuple(found)


def _row(
    temperature: float, top_p: float, top_k: int, presence: float, frequency: float, decay: float
) -> Sampling:
    return Sampling(temperature, top_p, top_k, 0.0, presence, frequency, decay)


#: by name; the first four are programs' defaults, the others the RWKV wiki's for tasks (they leave top-k and
#: decay)
PRESETS: Mapping[str, Sampling] = {
    "pip": _row(1.0, 0.85, 0, 0.2, 0.2, 0.996),
    "g1": _row(1.0, 0.5, 100, 0.0, 0.0, 0.997),
    "runner": _row(1.0, 0.3, 0, 0.0, 1.0, 0.996),
    "ai00": _row(1.0, 0.5, 128, 0.3, 0.3, 0.99654),
    "qa": _row(0.8, 0.2, 0, 0.1, 0.2, 0.996),
    "summary": _row(1.0, 0.3, 0, 0.2, 0.3, 0.996),
    "translation": _row(0.9, 0.3, 0, 0.2, 0.3, 0.996),
    "code": _row(0.7, 0.1, 0, 0.1, 0.2, 0.996),
    "story": _row(1.3, 0.8, 0, 0.4, 0.5, 0.996),
    "greedy": _row(0.0, 1.0, 0, 0.0, 0.0, 0.996),
}
