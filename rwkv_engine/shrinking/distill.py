"""`distill`: a smaller model that learns from a larger one.

The engine runs the teacher, of any family and format; torch trains the student, an RWKV-7. Network and
training loop are the recipe's of the embedded model.
"""

import importlib.util
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rwkv_engine import families
from rwkv_engine.checkpoints import Checkpoint
from rwkv_engine.checkpoints.write import write_safetensors
from rwkv_engine.errors import OptionError
from rwkv_engine.evaluation.keeping import digest_of, key_of
from rwkv_engine.loading import load, open_named
from rwkv_engine.model import Model
from rwkv_engine.numbers.bf16 import float32_to_bf16
from rwkv_engine.numbers.container import stored
from rwkv_engine.shrinking.corpus import Corpus
from rwkv_engine.shrinking.target import require_place, take_tokenizer
from rwkv_engine.system import cpu
from rwkv_engine.system.extras import missing
from rwkv_engine.system.files import remove_leftovers

Tell = Callable[[str], None]
HEAD_SIZE = 64
#: steps in which the rate rises; the share of all tokens after which it falls, down to zero
WARM_UP, FALL = 100, 0.5


@dataclass(frozen=True, slots=True)
class Distilled:
    """What `distill` made: parameters of the student and of the teacher, and the tokens that were learned from."""

    parameters: int
    teacher: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Course:
    """How a student learns.

    tokens       to learn from; None: each of the text once.
    rows, length  of a step: each row is read from an empty state.
    temperature  by which both distributions are divided.
    top_k        tokens of the teacher's distribution that are told apart; the others count as one.
    hidden       weight of the distance between the vectors that both heads read.
    truth        share of the loss that is the text's own next token; 1: no teacher, for comparison.
    fresh        begin with random numbers instead of the teacher's.
    rate         the largest learning rate.
    seed         of the first numbers, and of the rows.
    bf16         multiply matrices in BF16: faster on processors that can.
    """

    tokens: int | None = None
    rows: int = 6
    length: int = 256
    temperature: float = 1.0
    top_k: int = 64
    hidden: float = 0.0
    truth: float = 0.0
    fresh: bool = False
    rate: float = 2e-3
    seed: int = 1
    bf16: bool = False


def distill(
    teacher: str | Path | None,
    target: str | Path,
    *,
    layers: int,
    width: int,
    text: str | Path | Sequence[str | Path],
    ffn: int | None = None,
    course: Course | None = None,
    weights: str | None = None,
    threads: int | None = None,
    device: str = "cpu",
    resume: str | Path | None = None,
    force: bool = False,
    tell: Tell = lambda line: None,
) -> Distilled:
    """Write to `target` a smaller RWKV-7 with the teacher's vocabulary, which learned to predict what it does.

    teacher  as for `load`; of any family.          target  a safetensors file in BF16, with BlinkDL's names;
             it is whole or not there at all.
    layers, width, ffn  of the student; the width is a multiple of 64 and at most the teacher's; ffn None:
             four times the width, or the teacher's where the widths are equal.
    text     UTF-8 files, read one after another; in a .jsonl file, each line is a document: {"text": "..."}.
    course   how it learns; None: Course().
    weights  format in which the teacher is run, as for `load`.
    device   where torch multiplies: "cpu", "cuda" ...
    resume   folder for checkpoints, from which a run that was stopped goes on; None: `target`.training, which
             is deleted at the end.
    Raises   OptionError, MissingExtra (torch), and what `load` raises.
    """
    target, checkpoint, course = Path(target), open_named(teacher), course or Course()
    texts = [Path(text)] if isinstance(text, str | Path) else [Path(one) for one in text]
    _require(checkpoint, layers, width, ffn, course, texts)
    require_place(checkpoint, target, force)
    place = _torch(threads or cpu.lanes(), device)
    model = load(teacher, weights, threads)
    folder = target.with_name(target.name + ".training") if resume is None else Path(resume)
    key = key_of(model.fingerprint, model.format, layers, width, ffn, asdict(course), *map(digest_of, texts))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tell("reading the text")
        corpus = Corpus(texts, model.tokenizer, folder / "tokens.bin", course.length)
        numbers = _train(
            model, corpus, folder / "checkpoint.pt", key, (layers, width, ffn), course, place, tell
        )
    except OSError as error:
        raise OptionError(f"resume: {folder}: {error.strerror or error}", path=folder) from None
    remove_leftovers(target)
    take_tokenizer(checkpoint, target)
    tensors = {name: stored(name, "BF16", float32_to_bf16(array)) for name, array in numbers.items()}
    write_safetensors(target, tensors, {"format": "pt"})
    if resume is None:
        shutil.rmtree(folder, ignore_errors=True)
    whole = sum(math.prod(tensor.shape) for tensor in checkpoint.tensors.values())
    return Distilled(sum(array.size for array in numbers.values()), whole, course.tokens or corpus.tokens)


def _require(
    checkpoint: Checkpoint, layers: int, width: int, ffn: int | None, course: Course, texts: Sequence[Path]
) -> None:
    """Raise OptionError for sizes and settings that make no sense."""
    teacher = families.config_of(checkpoint)
    if not texts:
        raise OptionError("text: got no file; give one or more to learn from")
    for name, number in (
        ("layers", layers),
        ("width", width),
        ("ffn", 32 if ffn is None else ffn),
        ("tokens", 1 if course.tokens is None else course.tokens),
        ("rows", course.rows),
        ("length", course.length),
        ("top_k", course.top_k),
    ):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise OptionError.of(name, number, "a whole number of 1 or more")
    if width > teacher.width:
        raise OptionError(
            f"width: got {width}, and the teacher has {teacher.width}: a student is not wider; give {teacher.width} or less"
        )
    if width % HEAD_SIZE:
        raise OptionError.of("width", width, f"a multiple of {HEAD_SIZE}", "heads have that size")
    if not 0 < course.temperature < math.inf or not 0 < course.rate < 1:
        raise OptionError("temperature and rate: want numbers above 0, and a rate below 1")
    if not 0 <= course.truth <= 1 or not 0 <= course.hidden < math.inf:
        raise OptionError("truth and hidden: want a share between 0 and 1, and a weight of 0 or more")


def _torch(threads: int, device: str) -> Any:
    """The device, after torch was told how many threads it has. Raises MissingExtra, OptionError."""
    if importlib.util.find_spec("torch") is None:
        raise missing("distill", "train", "torch")
    from rwkv_engine_weights.recipe.loop import prepared

    try:
        return prepared(threads, device)
    except ValueError:
        raise OptionError.of("device", device, "one that torch has here, such as cpu or cuda") from None


def _train(
    model: Model,
    corpus: Corpus,
    kept: Path,
    key: str,
    sizes: tuple[int, int, int | None],
    course: Course,
    place: Any,
    tell: Tell,
) -> dict[str, np.ndarray]:
    """The student's tensors after its last step."""
    from rwkv_engine_weights.recipe import loop, student

    if loop.name_of(kept) not in (None, key):
        raise OptionError(
            f"{kept.parent} is of a run with another teacher, text or setting; delete it, or give another folder",
            path=kept.parent,
        )
    layers, width, ffn = sizes
    wishes = student.Wishes(course.temperature, course.top_k, course.hidden, course.truth)
    find = None if course.fresh else _finder(model.checkpoint)
    asked = student.sizes_of(model.vocab, layers, width, ffn, _sizes_of(model))
    far = model.config.width if course.hidden > 0 else None
    network = student.student_of(asked, course.seed, find, model.config.layers, far).to(place)
    tokens = course.tokens or corpus.tokens

    def batch(progress: Any) -> tuple[Any, int]:
        rows = corpus.rows(course.rows, course.seed, progress.steps, progress.tokens / tokens)
        return _lesson(student.Lesson, model, rows, course), rows[:, 1:].size

    def rate(progress: Any) -> float:
        left = (1 - progress.tokens / tokens) / (1 - FALL)
        return course.rate * min(1.0, (progress.steps + 1) / WARM_UP, left)

    plan = loop.Plan(
        tokens, batch, rate, lambda net, lesson: student.loss_of(net, lesson, wishes), key, course.bf16
    )
    loop.run(kept, network, plan, tell)
    return student.numbers_of(network)


def _lesson(make: Any, model: Model, rows: np.ndarray, course: Course) -> Any:
    """What the teacher says of rows [B, T + 1]; without a teacher, only the rows."""
    if course.truth == 1 and course.hidden == 0:
        return make(rows, None, None)
    said = [model.feed_hidden(row[:-1], model.new_state(), every=True) for row in rows]
    logits, hidden = (np.stack(column) for column in zip(*said, strict=True))
    return make(rows, None if course.truth == 1 else logits, hidden if course.hidden > 0 else None)


def _finder(checkpoint: Checkpoint) -> Callable[[str], np.ndarray | None]:
    """The teacher's float tensors by name: all of an RWKV-7, of others embedding and head."""
    same = families.config_of(checkpoint).family == "v7"

    def find(name: str) -> np.ndarray | None:
        tensor = checkpoint.tensors.get(name) if same or name in ("emb.weight", "head.weight") else None
        return None if tensor is None or tensor.format is not None else tensor.float32()

    return find


def _sizes_of(model: Model) -> Any:
    """The recipe's sizes of an RWKV-7 teacher; None for another family."""
    from rwkv_engine_weights.recipe.network import Sizes

    config, tensors = model.config, model.checkpoint.tensors
    if config.family != "v7":
        return None
    layer = f"blocks.{config.layers - 1}.att."
    ranks = [
        tensors[layer + name].shape[-1] if layer + name in tensors else 8 for name in ("w1", "a1", "v1", "g1")
    ]
    return Sizes(config.vocab, config.layers, config.width, config.ffn, *ranks)
