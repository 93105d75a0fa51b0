"""`Wishes`: how a text is to be written, as its caller says it."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from rwkv_engine.errors import OptionError
from rwkv_engine.writing.constraint import Constraint
from rwkv_engine.writing.prefix_cache import PrefixCache
from rwkv_engine.writing.sampling import Sampling

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Wishes:
    """How a text is to be written; see `Model.generate` for each.

    ends    ids that end the text besides those of the tokenizer: the end of a turn in a conversation, say.
    max_thoughts  the most tokens of a thought in front of the text; None: no limit.
    asked   the prompt's text if the text may begin with a thought: `max_tokens` then counts what is behind
            it. None: the text is all alike.
    Raises OptionError for what makes no sense.
    """

    max_tokens: int | None = 256
    sampling: Sampling = Sampling()
    stop: Sequence[str] = ()
    constraint: Constraint | None = None
    prefix_cache: PrefixCache | None = None
    alternatives: int = 0
    ends: Collection[int] = ()
    max_thoughts: int | None = None
    asked: str | None = None

    def __post_init__(self) -> None:
        if self.max_tokens is not None and not _is_count(self.max_tokens, 1):
            raise OptionError.of("max_tokens", self.max_tokens, "a whole number of 1 or more, or None")
        if not _is_count(self.alternatives, 0):
            raise OptionError.of("alternatives", self.alternatives, "a whole number, 0 or more")
        if self.max_thoughts is not None and not _is_count(self.max_thoughts, 1):
            raise OptionError.of("max_thoughts", self.max_thoughts, "a whole number of 1 or more, or None")
        for name, kind in (("constraint", Constraint), ("prefix_cache", PrefixCache)):
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise OptionError.of(name, value, f"a {kind.__name__}, or None")

    @classmethod
    def of(
        cls,
        max_tokens: int | None,
        sampling: Sampling | None = None,
        stop: str | Iterable[str] | None = None,
        constraint: Constraint | None = None,
        prefix_cache: PrefixCache | None = None,
        alternatives: int = 0,
        ends: Iterable[int] | None = None,
        max_thoughts: int | None = None,
    ) -> "Wishes":
        """The wishes of a caller, who may say None, or one text instead of a list of them."""
        if sampling is not None and not isinstance(sampling, Sampling):
            raise OptionError.of("sampling", sampling, "a Sampling, or None")
        stops = (stop,) if isinstance(stop, str) else _listed("stop", stop, "a text or a list of texts")
        ids = _listed("ends", ends, "a list of token ids")
        chosen = Sampling() if sampling is None else sampling
        return cls(max_tokens, chosen, stops, constraint, prefix_cache, alternatives, ids, max_thoughts)


def _listed(name: str, value: Iterable[T] | None, wanted: str) -> tuple[T, ...]:
    if value is None:
        return ()
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise OptionError.of(name, value, f"{wanted}, or None")
    return tuple(value)


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and int(value) >= least
