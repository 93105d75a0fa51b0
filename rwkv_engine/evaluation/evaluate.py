"""`evaluate`: models in formats, on texts and tasks; a row for each."""

import math
from collections.abc import Sequence
from pathlib import Path

from rwkv_engine.bench.process import peak_of
from rwkv_engine.errors import OptionError
from rwkv_engine.evaluation.asking import ask
from rwkv_engine.evaluation.keeping import Keeper
from rwkv_engine.evaluation.report import Row
from rwkv_engine.evaluation.sums import KL, NATS, SAME, TOKENS, Sums, along, bits_per_byte, quantile, totals
from rwkv_engine.evaluation.tasks import Task, task_of
from rwkv_engine.evaluation.texts import EMBEDDED, Tell, Text, read_text, text_of
from rwkv_engine.formats import FORMATS
from rwkv_engine.loading import load
from rwkv_engine.model import Model

Source = str | Path | None
#: what two tokenizers must agree about to count as the same
_PROBE = "The 3 small words, naïve and 東京\n\nUser: yes?"


def evaluate(
    models: Source | Sequence[Source] = None,
    *,
    texts: Source | Sequence[str | Path] = (),
    tasks: Source | Sequence[str | Path] = (),
    weights: str | Sequence[str | None] | None = None,
    against: str | Path | None = None,
    threads: int | None = None,
    tokens: int | None = None,
    items: int | None = None,
    resume: str | Path | None = None,
    memory: bool = True,
    cache: bool = True,
    tell: Tell = lambda line: None,
) -> list[Row]:
    """How good models are on texts and tasks, beside what they cost: a row for each model in each format.

    models   one or several, each as for `load`; None: the embedded model.
    texts    UTF-8 files of any length, each read from an empty state that is then carried along; in a .jsonl
             file, each line is a document: {"text": "..."}; "embedded": stories and conversations of the
             embedded model's grammar.
    tasks    files of JSON lines, as docs/evaluate.md says; "embedded": the questions of the embedded model's
             card.
    weights  one format or several, as for `load`.
    against  the reference: a model, or a format in which each model is its own.
    tokens   the most that are read of each text; None: all.      items   the most questions of each task;
             None: all.
    resume   a folder in which is kept what is done; a run that was stopped goes on from there.
    memory   whether each row says the most memory of a process of its own, which takes a second or two.
    cache    as for `load`.
    tell     is told, in a line, how far it is.
    Without texts and tasks, the embedded model is asked its own ones. Raises OptionError, TokenError, and
    what `load` raises.
    """
    named = [models] if models is None or isinstance(models, str | Path) else list(models)
    formats: list[str | None] = [weights] if weights is None or isinstance(weights, str) else list(weights)
    for name, value in (("tokens", tokens), ("items", items)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise OptionError.of(name, value, "a whole number of 1 or more")
    texts, tasks = _several(texts), _several(tasks)
    if not texts and not tasks:
        if named != [None]:
            raise OptionError(
                "eval: give a text or a task to evaluate the model on (--text FILE, --tasks FILE)"
            )
        texts, tasks = [EMBEDDED], [EMBEDDED]
    read, asked = [text_of(text) for text in texts], [task_of(task, items) for task in tasks]
    keeper, rows = Keeper(None if resume is None else Path(resume)), list[Row]()
    for source in named:
        for chosen in formats:
            tell(f"loading {source or 'the embedded model'}")
            model = load(source, chosen, threads, cache=cache)
            reference = None if against is None else _reference(model, source, against, threads, cache)
            reference_name = None if against is None else str(against)
            peak = peak_of(None if source is None else str(source), chosen, threads) if memory else None
            rows.append(_row(model, reference, reference_name, read, asked, tokens, peak, keeper, tell))
    return rows


def _several(given: Source | Sequence[str | Path]) -> Sequence[str | Path]:
    """One, several or none, as a list."""
    return [given] if isinstance(given, str | Path) else list(given or ())


def _reference(model: Model, source: Source, against: str | Path, threads: int | None, cache: bool) -> Model:
    """The model that another is compared with. Raises OptionError for one whose tokens are others."""
    own = str(against) in FORMATS
    which, weights = (source, str(against)) if own else (against, None)
    reference = load(which, weights, threads, cache=cache)
    ours, theirs = model.tokenizer, reference.tokenizer
    if model.vocab != reference.vocab or ours.encode(_PROBE) != theirs.encode(_PROBE):
        raise OptionError(
            f"against: got {against} with {reference.vocab} tokens ({theirs.name}), want the vocabulary of the model, "
            f"{model.vocab} tokens ({ours.name}): distributions over other tokens cannot be compared"
        )
    return reference


def _row(
    model: Model,
    reference: Model | None,
    against: str | None,
    texts: Sequence[Text],
    tasks: Sequence[Task],
    limit: int | None,
    peak: int | None,
    keeper: Keeper,
    tell: Tell,
) -> Row:
    name = model.checkpoint.path.name

    def told(line: str) -> None:
        tell(f"{name} {model.format}: {line}")

    sums = [read_text(model, reference, text, limit, keeper, told) for text in texts]
    scores = [ask(model, task, keeper, told) for task in tasks]
    whole = totals(sums) if sums else None
    bits, error = bits_per_byte(sums) if sums else (None, None)
    compared = whole if reference is not None else None
    return Row(
        model=name,
        format=model.format,
        against=against,
        tokens=0 if whole is None else int(whole[TOKENS]),
        bits_per_byte=bits,
        bits_per_byte_error=error,
        perplexity=None if whole is None else math.exp(whole[NATS] / whole[TOKENS]),
        kl_mean=None if compared is None else float(compared[KL] / compared[TOKENS]),
        kl_p99=None if compared is None else quantile(sums, 0.99),
        kl_max=None if compared is None else max(one.kl_max for one in sums),
        top1_agreement=None if compared is None else float(compared[SAME] / compared[TOKENS]),
        bytes_per_token=model.weight_bytes,
        peak_bytes=peak,
        tokens_per_second=None if whole is None else float(whole[TOKENS]) / sum(one.seconds for one in sums),
        texts=[_along(text, one, reference) for text, one in zip(texts, sums, strict=True)],
        tasks=scores,
    )


def _along(text: Text, sums: Sums, reference: Model | None) -> dict[str, object]:
    """A text's name, and its figures block by block; without a reference, only those that need none."""
    rows = along(sums)
    if reference is None:
        rows = [{"tokens": row["tokens"], "bits_per_byte": row["bits_per_byte"]} for row in rows]
    return {"name": text.name, "along": rows}
