"""What drafts gain on text that repeats: records, as programs ask models for them."""

import json
import statistics
from collections.abc import Sequence

import numpy as np

from rwkv_engine.model import Model
from rwkv_engine.writing.drafts import drafting
from rwkv_engine.writing.generate import write as steps_of
from rwkv_engine.writing.history import History
from rwkv_engine.writing.sampling import Sampling
from rwkv_engine.writing.step import Usage
from rwkv_engine.writing.wishes import Wishes
from rwkv_engine.writing.writer import Writer

#: records of which the model has read the first ones
RECORDS = 400
CITIES = ("Rome", "Oslo", "Lima", "Kyiv")
PROMPT = 600


class _Dictated:
    """A processor that lets a model write given tokens, so that every model writes the same."""

    def __init__(self, ids: Sequence[int]) -> None:
        self._ids = ids

    def __call__(self, logits: np.ndarray, history: History) -> np.ndarray:
        out = np.full_like(logits, -np.inf)
        out[self._ids[len(history.tokens)]] = 0
        return out


def check(draft: Model | str | None, model: Model) -> None:
    """Raise OptionError for what cannot draft for a model."""
    drafting(draft, model)


def with_drafts(model: Model, draft: Model | str, tokens: int, trials: int) -> dict[str, float]:
    """Tokens/s of writing so many tokens, "plain" and "drafted", taking turns; "acceptance" and
    "tokens_per_pass" of the drafts.
    """
    ids = model.tokenizer.encode(records())[: PROMPT + tokens]
    behind = model.new_state()
    model.skim(ids[: PROMPT - 1], behind)
    dictated = Sampling(temperature=0, processors=(_Dictated(ids[PROMPT:]),))

    def write(chosen: Model | str | None) -> Usage:
        wishes = Wishes(len(ids) - PROMPT, dictated)
        writer = Writer(
            ids[PROMPT - 1 : PROMPT], wishes, behind.fork(), model.tokenizer, model.format, model.vocab
        )
        writer.begin()
        return [*steps_of(model, writer, None, drafting(chosen, model, ids[:PROMPT]))][-1].usage

    turns = [(write(None), write(draft)) for _ in range(1 + trials)][1:]
    return {
        "plain": statistics.median(plain.rate for plain, _ in turns),
        "drafted": statistics.median(drafted.rate for _, drafted in turns),
        "acceptance": turns[-1][1].acceptance,
        "tokens_per_pass": turns[-1][1].tokens_per_pass,
    }


def records() -> str:
    """JSON, a record a line, with fields that repeat and fields that do not."""
    return "\n".join(
        json.dumps(
            {
                "id": 1000 + n,
                "name": f"user{n * 7 % 50}",
                "city": CITIES[n % len(CITIES)],
                "active": n % 3 > 0,
                "score": round(n * 1.37 % 10, 2),
            }
        )
        for n in range(RECORDS)
    )
