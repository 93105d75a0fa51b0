"""`prune`: a checkpoint without the hidden units that matter least on a text."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rwkv_engine import families
from rwkv_engine.checkpoints import Checkpoint
from rwkv_engine.checkpoints.names import matrices
from rwkv_engine.checkpoints.write import write_safetensors
from rwkv_engine.errors import OptionError
from rwkv_engine.evaluation.keeping import Keeper
from rwkv_engine.evaluation.sums import KL, TOKENS, bits_per_byte, totals
from rwkv_engine.evaluation.texts import Text, passes, read_text, text_of
from rwkv_engine.formats import own_format
from rwkv_engine.loading import load, open_named, tokenizer_of
from rwkv_engine.numbers.bf16 import float32_to_bf16
from rwkv_engine.numbers.container import stored
from rwkv_engine.numbers.tensor import Tensor
from rwkv_engine.shrinking.target import require_place, take_tokenizer
from rwkv_engine.shrinking.units import chosen_units, products, refitted
from rwkv_engine.system.files import remove_leftovers

Tell = Callable[[str], None]
#: kept units are a multiple of this, where the model has so many: the kernels take as many at once
STEP = 32
#: the check text may lose this much more, in bits a byte, than the text that units were chosen on, before a
#: warning is given
MARGIN = 0.002
#: and its mean KL may be this much more than ten times that of the other
KL_MARGIN = 1e-4


@dataclass(frozen=True, slots=True)
class Loss:
    """What pruning did to one text: bits a byte before and after, and the mean KL in nats of the pruned model
    from the other.
    """

    text: str
    before: float
    after: float
    kl: float


@dataclass(frozen=True, slots=True)
class Pruned:
    """What `prune` made: hidden units of each layer before and after, the losses, and a warning, or None."""

    units: int
    kept: int
    losses: tuple[Loss, ...]
    warning: str | None


def prune(
    source: str | Path | None,
    target: str | Path,
    *,
    ffn: float,
    text: str | Path,
    check: str | Path | None = None,
    tokens: int = 100_000,
    threads: int | None = None,
    force: bool = False,
    tell: Tell = lambda line: None,
) -> Pruned:
    """Write `source` to `target` without the share `ffn` of the channel mix's hidden units that matter least
    on a text.

    source  as for `load`: float weights.          target  a safetensors file; it is whole or not there at
            all.
    ffn     share of the units to remove, between 0 and 1.
    text    UTF-8 file on which units are chosen and `ffn.value` is fitted anew, layer after layer, by least
            squares; .jsonl files and "embedded" as for `evaluate`.
    check   another text, on which the loss is measured too: units that are dead on one text fire on another.
    tokens  the most that are read of each text.   force   write over an existing file.
    Raises  OptionError, and what `load` raises.
    """
    target, checkpoint = Path(target), open_named(source)
    keep, units = _kept(checkpoint, ffn)
    require_place(checkpoint, target, force)
    tokenizer, chosen = tokenizer_of(source), text_of(text)
    others = [] if check is None else [text_of(check)]
    pruned, kept = dict(checkpoint.tensors), dict[int, np.ndarray]()
    for layer in range(families.config_of(checkpoint).layers):
        tell(f"layer {layer + 1}: reading the text")
        inputs = (ids for ids, _ in passes(chosen, tokenizer, tokens))
        sums = products(dataclasses.replace(checkpoint, tensors=pruned), layer, inputs, threads)
        kept[layer] = _without_units(pruned, layer, sums, keep)
    for layer, places in kept.items():
        _cut(pruned, layer, places)
    remove_leftovers(target)
    take_tokenizer(checkpoint, target)
    write_safetensors(target, pruned, checkpoint.metadata)
    tell("measuring the loss")
    losses = _losses(source, target, [chosen, *others], tokens, threads, tell)
    return Pruned(units, keep, losses, _warning(losses))


def _kept(checkpoint: Checkpoint, share: float) -> tuple[int, int]:
    """(units that stay, units of the model).

    Raises OptionError for a share of nothing or all, and for packed matrices.
    """
    if not 0 < share < 1:
        raise OptionError.of(
            "ffn", share, "a share between 0 and 1, such as 0.5", "both ends leave nothing to do or to run"
        )
    if any(tensor.format is not None for tensor in matrices(checkpoint.tensors)):
        raise OptionError(
            f"{checkpoint.path} is packed; prune the checkpoint that it was made of", path=checkpoint.path
        )
    units = families.config_of(checkpoint).ffn
    if any(name.endswith("ffn.s_emb.weight") for name in checkpoint.tensors):
        raise OptionError(
            f"{checkpoint.path}: the channel mix of RWKV-7a has a factor for each unit, which prune does not know",
            path=checkpoint.path,
        )
    step = STEP if units % STEP == 0 else 1
    keep = max(step, round(units * (1 - share) / step) * step)
    if keep >= units:
        raise OptionError(
            f"ffn: got {share}, which of {units} hidden units removes none; give a larger share"
        )
    return keep, units


def _without_units(tensors: dict[str, Tensor], layer: int, sums: np.ndarray, keep: int) -> np.ndarray:
    """Put zeros where `ffn.value` read the units that go, and the fitted numbers for those that stay, which
    are returned.

    The shapes stay until all layers are done: a program wants all layers alike.
    """
    name = f"blocks.{layer}.ffn.value.weight"
    value = tensors[name].float32()
    kept = chosen_units(sums, value, keep)
    new = np.zeros_like(value)
    new[:, kept] = refitted(sums, value, kept)
    tensors[name] = _as(tensors[name], new)
    return kept


def _as(tensor: Tensor, values: np.ndarray) -> Tensor:
    """The tensor with other numbers, in its own element type."""
    if tensor.dtype == "BF16":
        return stored(tensor.name, "BF16", float32_to_bf16(values))
    return stored(
        tensor.name, tensor.dtype, values.astype(np.float16 if tensor.dtype == "F16" else np.float32)
    )


def _cut(tensors: dict[str, Tensor], layer: int, kept: np.ndarray) -> None:
    """Take away the rows of `ffn.key` and the columns of `ffn.value` that are not kept."""
    for name, index in (("key", (kept, slice(None))), ("value", (slice(None), kept))):
        name = f"blocks.{layer}.ffn.{name}.weight"
        old = tensors[name]
        tensors[name] = stored(name, old.dtype, np.ascontiguousarray(old.bits()[index]))


def _losses(
    source: str | Path | None, target: Path, texts: list[Text], tokens: int, threads: int | None, tell: Tell
) -> tuple[Loss, ...]:
    own = own_format(matrices(open_named(source).tensors)).name  # a GGUF's exact numbers
    before, after, found = load(source, own, threads), load(target, None, threads), list[Loss]()
    for text in texts:
        first = read_text(before, None, text, tokens, Keeper(None), tell)
        second = read_text(after, before, text, tokens, Keeper(None), tell)
        whole = totals([second])
        found.append(
            Loss(
                text.name,
                bits_per_byte([first])[0],
                bits_per_byte([second])[0],
                float(whole[KL] / whole[TOKENS]),
            )
        )
    return tuple(found)


def _warning(losses: tuple[Loss, ...]) -> str | None:
    """A sentence where the other text lost clearly more than the one that the units were chosen on."""
    if len(losses) < 2:
        return None
    own, other = (loss.after - loss.before for loss in losses)
    if other <= own + MARGIN and losses[1].kl <= 10 * losses[0].kl + KL_MARGIN:
        return None
    return (
        f"{losses[1].text} lost {other:.4f} bits a byte (mean KL {losses[1].kl:.1e}), {losses[0].text} {own:.4f} ({losses[0].kl:.1e}): "
        "units that rest on one text fire on another; prune less, or on a text of more kinds"
    )
