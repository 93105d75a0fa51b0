"""`calibrate`: quantize a checkpoint so that what a matrix gives on a text is near, not only its weights."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rwkv_engine.checkpoints import Checkpoint
from rwkv_engine.checkpoints.names import is_quantized, layer_of
from rwkv_engine.errors import OptionError
from rwkv_engine.evaluation.keeping import Keeper
from rwkv_engine.evaluation.sums import KL, TOKENS, totals
from rwkv_engine.evaluation.texts import Text, read_text, text_of
from rwkv_engine.formats import FORMATS, format_named
from rwkv_engine.loading import load, open_named, tokenizer_of
from rwkv_engine.model import Model
from rwkv_engine.shrinking.inputs import groups_of, products
from rwkv_engine.system.files import expanded
from rwkv_engine.text import Tokenizer
from rwkv_engine.tools import quantize as packing
from rwkv_engine.writing.sampling import Sampling

Tell = Callable[[str], None]
#: the last part of the text is not fitted on: one of so many tokens
HELD_OUT = 5
#: the fewest tokens of a text that say something
LEAST = 200
#: bytes of sums that are in memory at once; a layer's are, whatever they take
ROOM = 1 << 30


@dataclass(frozen=True, slots=True)
class CalibrationLoss:
    """Mean KL in nats from the float model on one text: without and with calibrating."""

    text: str
    plain: float
    calibrated: float


def calibrate(
    source: str | Path | None,
    target: str | Path,
    text: str | Path,
    format: str = "int4",
    *,
    tokens: int = 20_000,
    tokenizer: str | Path | None = None,
    template: str | None = None,
    threads: int | None = None,
    tell: Tell = lambda line: None,
) -> tuple[CalibrationLoss, ...]:
    """As `quantize`, with errors that cancel on a text: each column of a matrix makes up for those before it.

    source  as for `load`: float weights.     target, tokenizer, template  as for `quantize`.
    text    UTF-8 file; "embedded" as for `evaluate`. Its last fifth is kept for the check. To the rest comes
            as much text that the model writes itself: on prose alone, a model may get worse at what it
            writes.
    format  int5 or int4.                     tokens  the most that are read of the text.
    Returns the losses on what was fitted on, and on the last fifth. `ffn.value` and the head are quantized as
            `quantize` does: the inputs of `ffn.value` are mostly zeros, which differ from text to text.
    Raises  OptionError, and what `load` and `quantize` raise.
    """
    target, checkpoint = expanded(target), open_named(source)
    if format_named(format).fitted is None:
        able = [name for name, one in FORMATS.items() if one.fitted]
        raise OptionError.of("format", format, f"one of {', '.join(able)}", "others cannot be calibrated")
    packing.require(checkpoint, target)
    chosen = tokenizer_of(source, tokenizer)
    fitted, checked = _parts(text, chosen, tokens)
    model = load(source, None, threads, tokenizer=tokenizer)
    tell("the model writes text of its own")
    own = _written(model, fitted)
    packing.quantize(
        checkpoint,
        target,
        format,
        tokenizer=tokenizer,
        template=template,
        sums=_SumsOfLayers(checkpoint, [fitted, own], threads, tell).of,
    )
    tell("measuring the loss")
    plain = load(source, format, threads, tokenizer=tokenizer, cache=False)
    done = load(target, None, threads)
    return tuple(
        CalibrationLoss(name, *(_divergence(one, model, name, ids) for one in (plain, done)))
        for name, ids in (("fitted on", fitted), ("held out", checked))
    )


def _parts(text: str | Path, tokenizer: Tokenizer, tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """(ids that are fitted on, ids that are kept for the check), int64."""
    ids: list[int] = []
    for piece in text_of(text).pieces(tokenizer):
        ids += piece
        if len(ids) >= tokens:
            break
    ids = ids[:tokens]
    if len(ids) < LEAST:
        raise OptionError.of("calibrate", f"a text of {len(ids)} tokens", f"at least {LEAST} tokens")
    cut = len(ids) - len(ids) // HELD_OUT
    return np.array(ids[:cut], np.int64), np.array(ids[cut:], np.int64)


def _written(model: Model, text: np.ndarray) -> np.ndarray:
    """As many ids as the text has, written by the model behind the text's first ones, or the token that ends
    a document.
    """
    end = model.tokenizer.end
    start = text[:1].tolist() if end is None else [end]
    sampling = Sampling(temperature=1.0, top_p=1.0, seed=0)
    ids: list[int] = []
    while len(ids) < len(text):
        steps = model.generate(start, max_tokens=len(text) - len(ids), sampling=sampling)
        found = [step.token for step in steps if step.token is not None]
        ids += [*start, *found]
        sampling = Sampling(temperature=1.0, top_p=1.0, seed=len(ids))
    return np.array(ids, np.int64)


class _SumsOfLayers:
    """The sums of products of matrices that are asked for layer by layer; those of some layers are kept."""

    def __init__(
        self, checkpoint: Checkpoint, texts: list[np.ndarray], threads: int | None, tell: Tell
    ) -> None:
        self._checkpoint, self._texts, self._threads, self._tell = checkpoint, texts, threads, tell
        self._names = [
            name
            for name, tensor in checkpoint.tensors.items()
            if is_quantized(name, tensor)
            and layer_of(name) is not None
            and not name.endswith("ffn.value.weight")
        ]
        self._groups = groups_of(checkpoint.tensors, self._names, ROOM)
        self._held: dict[str, np.ndarray] = {}

    def of(self, name: str) -> np.ndarray | None:
        """The sums of the matrix with this name; None: it is not calibrated."""
        if name not in self._names:
            return None
        if name not in self._held:
            layer = layer_of(name) or 0
            first, last = next(group for group in self._groups if group[0] <= layer < group[1])
            self._tell(f"layers {first + 1} to {last}: reading the texts")
            self._held.clear()
            self._held |= products(self._checkpoint, first, last, self._names, self._texts, self._threads)
        return self._held.get(name)


def _divergence(model: Model, reference: Model, name: str, ids: np.ndarray) -> float:
    text = Text(name, lambda tokenizer: iter([ids.tolist()]), lambda: name)
    whole = totals([read_text(model, reference, text, None, Keeper(None), lambda line: None)])
    return float(whole[KL] / whole[TOKENS])
