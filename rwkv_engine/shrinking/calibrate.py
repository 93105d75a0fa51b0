"""`calibrate`: quantize a checkpoint so that what it does on texts is near, not only its weights."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from rwkv_engine import families
from rwkv_engine.checkpoints import Checkpoint
from rwkv_engine.checkpoints.names import is_quantized, layer_of, skips_zeros
from rwkv_engine.errors import OptionError
from rwkv_engine.evaluation.keeping import Keeper
from rwkv_engine.evaluation.sums import KL, TOKENS, totals
from rwkv_engine.evaluation.texts import Text, read_text, text_of
from rwkv_engine.formats import FORMATS, format_named
from rwkv_engine.loading import load, open_named, tokenizer_of
from rwkv_engine.model import Model
from rwkv_engine.numbers.tensor import Tensor
from rwkv_engine.running.compiling import watcher
from rwkv_engine.shrinking.inputs import Layer
from rwkv_engine.system import cpu
from rwkv_engine.system.files import expanded
from rwkv_engine.text import Tokenizer
from rwkv_engine.tools import quantize as packing

Tell = Callable[[str], None]
Source = str | Path
#: the last part of the texts is not fitted on: one of so many tokens
HELD_OUT = 5
#: the fewest tokens that say something
LEAST = 500
#: sequences that the model writes at the same time
STREAMS = 16
#: the most units of a channel mix whose `ffn.value` is calibrated: its sums grow with their square, and those of
#: large models differ from text to text
UNITS = 4096


@dataclass(frozen=True, slots=True)
class CalibrationLoss:
    """Mean KL in nats from the float model on a text that was not fitted on: without and with calibrating."""

    text: str
    plain: float
    calibrated: float


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What `calibrate` made: the losses, and a warning if it lost more than without, so that nothing was
    calibrated; else None.
    """

    losses: tuple[CalibrationLoss, ...]
    warning: str | None


def calibrate(
    source: Source | None,
    target: Source,
    texts: Source | Sequence[Source],
    format: str = "int4",
    *,
    tokens: int = 8000,
    tokenizer: Source | None = None,
    template: str | None = None,
    threads: int | None = None,
    tell: Tell = lambda line: None,
) -> Calibrated:
    """As `quantize`, with errors that cancel on texts: those of a matrix, and those of all before it.

    source  as for `load`: float weights.     target, tokenizer, template  as for `quantize`.
    texts   UTF-8 files; "embedded" as for `evaluate`. The last fifth is kept for the check. To the rest comes as
            much text that the model writes itself: on prose alone, a model may get worse at what it writes.
    format  int5 or int4.                     tokens  the most that are read of the texts.
    threads  as for `load`; the result does not depend on it.
    tell    is told, in a line, how far it is.
    Returns the losses on texts that were not fitted on. If one is worse than without calibrating, what is written
            is what `quantize` writes, and there is a warning.
    The head is quantized as `quantize` does, and so is `ffn.value` where a layer has more than 4,096 units: its
    inputs are mostly zeros, which differ from text to text. In memory are the result, the model's layers so far,
    and for each matrix of a stage two or three arrays of 8 bytes times the square of its columns.
    Raises OptionError, and what `load` and `quantize` raise.
    """
    watcher()
    target, checkpoint = expanded(target), open_named(source)
    _require(format, tokens)
    packing.require(checkpoint, target)
    chosen = tokenizer_of(source, tokenizer)
    fitted, checked = _parts(texts, chosen, tokens)
    model = load(source, "f32" if _is_coded(checkpoint) else None, threads, tokenizer=tokenizer)
    tell("the model writes text of its own")
    own = _written(model, len(fitted), 0)
    asked = [("held out", [checked]), ("its own writing", _written(model, len(checked), 1))]
    lanes = cpu.lanes() if threads is None else threads
    made = _made(checkpoint, format, [fitted, *own], lanes, tell)
    packed = partial(packing.quantize, checkpoint, target, format, tokenizer=tokenizer, template=template)
    packed(made=made)
    tell("measuring the loss")
    plain = load(source, format, threads, tokenizer=tokenizer, cache=False)
    done = load(target, None, threads)
    losses = tuple(
        CalibrationLoss(name, *(_divergence(one, model, name, ids) for one in (plain, done)))
        for name, ids in asked
    )
    worse = [loss for loss in losses if not loss.calibrated < loss.plain]
    if not worse:
        return Calibrated(losses, None)
    packed()
    return Calibrated(
        losses,
        f"calibrating lost more than it gained ({worse[0].text}: mean KL {worse[0].calibrated:.1e}, without "
        f"{worse[0].plain:.1e}), so the file is not calibrated; give a longer text, or one of more kinds",
    )


def _require(format: str, tokens: int) -> None:
    if format_named(format).fitted is None:
        able = [name for name, one in FORMATS.items() if one.fitted]
        raise OptionError.of("format", format, f"one of {', '.join(able)}", "others cannot be calibrated")
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < LEAST:
        raise OptionError.of("tokens", tokens, f"a whole number of {LEAST} or more")


def _is_coded(checkpoint: Checkpoint) -> bool:
    """Whether a GGUF has quantized its matrices: what they are measured against is their exact numbers."""
    return any(tensor.kind is not None for tensor in checkpoint.tensors.values())


def _parts(
    texts: Source | Sequence[Source], tokenizer: Tokenizer, tokens: int
) -> tuple[np.ndarray, np.ndarray]:
    """(ids that are fitted on, ids that are kept for the check), int64: of each text the same share."""
    named = [texts] if isinstance(texts, str | Path) else list(texts)
    if not named:
        raise OptionError("calibrate: give a text")
    fitted, checked = list[int](), list[int]()
    for one in named:
        ids: list[int] = []
        for piece in text_of(one).pieces(tokenizer):
            ids += piece
            if len(ids) >= tokens // len(named):
                break
        ids = ids[: tokens // len(named)]
        cut = len(ids) - len(ids) // HELD_OUT
        fitted, checked = fitted + ids[:cut], checked + ids[cut:]
    if len(fitted) + len(checked) < LEAST:
        raise OptionError.of(
            "calibrate",
            f"{', '.join(map(str, named))} of {len(fitted) + len(checked)} tokens",
            f"at least {LEAST}",
        )
    return np.array(fitted, np.int64), np.array(checked, np.int64)


def _written(model: Model, tokens: int, seed: int) -> list[np.ndarray]:
    """About so many ids that the model writes at temperature 1, in several sequences; one that ends a document
    begins another.
    """
    draw, states = np.random.default_rng(seed), [model.new_state() for _ in range(STREAMS)]
    start = model.tokenizer.end
    now = np.full(STREAMS, 0 if start is None else start, np.int64)
    written = []
    for _ in range(-(-tokens // STREAMS)):
        logits = model.feed_batch(
            [([int(token)], state) for token, state in zip(now, states, strict=True)]
        ).astype(np.float64)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True)).cumsum(axis=1)
        points = draw.random(STREAMS) * shares[:, -1]
        now = np.minimum((shares <= points[:, None]).sum(axis=1), model.vocab - 1)
        written.append(now)
    return list(np.ascontiguousarray(np.stack(written, axis=1)))


def _made(
    checkpoint: Checkpoint, format: str, texts: list[np.ndarray], threads: int, tell: Tell
) -> dict[str, np.ndarray]:
    """Every matrix of every layer, calibrated, in the order in which they are used."""
    form, made = format_named(format), dict[str, np.ndarray]()
    count = families.config_of(checkpoint).layers
    for number in range(count):
        tell(f"layer {number + 1} of {count}")
        layer = Layer(checkpoint, number, form, texts, threads)
        for names in _stages(checkpoint.tensors, number):
            fittings = layer.fittings([name for name in names if _is_fitted(checkpoint.tensors[name])], made)
            for name in names:
                tensor, fitting = checkpoint.tensors[name], fittings.get(name)
                assert form.fitted is not None
                made[name] = form.stored(tensor) if fitting is None else form.fitted(tensor, fitting)
    return made


def _stages(tensors: Mapping[str, Tensor], layer: int) -> list[list[str]]:
    """Names of a layer's matrices: those of each stage depend on what the ones before it make."""
    ends = (".att.output.weight", ".ffn.value.weight")
    mine = [name for name, one in tensors.items() if layer_of(name) == layer and is_quantized(name, one)]
    stages = []
    for mix, end in zip((".att.", ".ffn."), ends, strict=True):
        stages.append([name for name in mine if mix in name and not name.endswith(end)])
        stages.append([name for name in mine if name.endswith(end)])
    return [stage for stage in stages if stage]


def _is_fitted(tensor: Tensor) -> bool:
    return not skips_zeros(tensor.name) or tensor.shape[1] <= UNITS


def _divergence(model: Model, reference: Model, name: str, texts: list[np.ndarray]) -> float:
    found = []
    for ids in texts:
        text = Text(name, partial(_given, ids.tolist()), lambda: name)
        found.append(read_text(model, reference, text, None, Keeper(None), lambda line: None))
    whole = totals(found)
    return float(whole[KL] / whole[TOKENS])


def _given(ids: list[int], tokenizer: Tokenizer) -> Iterator[list[int]]:
    """For `Text.pieces`: these ids, whatever the tokenizer."""
    yield ids
