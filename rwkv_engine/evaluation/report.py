"""`Row`: a point of the trade between quality and bytes; rows as a table, as Markdown, and as JSON."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rwkv_engine.evaluation.asking import Score


@dataclass(frozen=True, slots=True)
class Row:
    """One model in one format: how good it is, and what it costs. What was not asked for is None.

    model, format, against  names; against: the reference.
    tokens                  of all texts.
    bits_per_byte           of all texts together.   bits_per_byte_error  its standard error, by blocks of
                            1,000 tokens.
    perplexity              for each token.
    kl_mean, kl_p99, kl_max  nats by which the reference's next-token distribution diverges (p99 within 1 %).
    top1_agreement          share of tokens at which both find the same token likeliest.
    bytes_per_token         weights that one decoded token reads.
    peak_bytes              most resident memory of a process that loads this model and reads a little.
    tokens_per_second       at which the texts were read and scored.
    texts                   of each: name, and its figures along the way, for every thousand tokens.
    tasks                   the scores.
    """

    model: str
    format: str
    against: str | None
    tokens: int
    bits_per_byte: float | None
    bits_per_byte_error: float | None
    perplexity: float | None
    kl_mean: float | None
    kl_p99: float | None
    kl_max: float | None
    top1_agreement: float | None
    bytes_per_token: int
    peak_bytes: int | None
    tokens_per_second: float | None
    texts: list[dict[str, Any]]
    tasks: list[Score]


def as_json(rows: Sequence[Row]) -> str:
    """A JSON list with an object for each row."""
    return json.dumps([dataclasses.asdict(row) for row in rows])


#: head of a column, and its cell; columns in which nothing was measured are left out
_COLUMNS: tuple[tuple[str, Callable[[Row], str | None]], ...] = (
    ("model", lambda r: r.model),
    ("format", lambda r: r.format),
    ("bits a byte", lambda r: _with_error(r.bits_per_byte, r.bits_per_byte_error)),
    ("perplexity", lambda r: None if r.perplexity is None else f"{r.perplexity:,.3f}"),
    ("KL mean", lambda r: _small(r.kl_mean)),
    ("KL p99", lambda r: _small(r.kl_p99)),
    ("KL max", lambda r: _small(r.kl_max)),
    ("same top 1", lambda r: None if r.top1_agreement is None else f"{100 * r.top1_agreement:.2f} %"),
    ("MB a token", lambda r: f"{r.bytes_per_token / 1e6:,.2f}"),
    ("peak MB", lambda r: None if r.peak_bytes is None else f"{r.peak_bytes / 1e6:,.0f}"),
    ("tokens/s", lambda r: None if r.tokens_per_second is None else f"{r.tokens_per_second:,.0f}"),
)


def table(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """The heads, then the rows, as text."""
    cells = {head: [cell(row) for row in rows] for head, cell in _COLUMNS}
    for name in dict.fromkeys(score.name for row in rows for score in row.tasks):
        cells[name] = [next((_score(s) for s in row.tasks if s.name == name), None) for row in rows]
    kept = {head: column for head, column in cells.items() if any(cell is not None for cell in column)}
    return [tuple(kept), *(tuple(cell or "" for cell in line) for line in zip(*kept.values(), strict=True))]


def markdown(rows: Sequence[Row]) -> str:
    """The table in Markdown."""
    heads, *lines = table(rows)
    return "\n".join(
        [
            "| " + " | ".join(heads) + " |",
            "|---" * len(heads) + "|",
            *("| " + " | ".join(line) + " |" for line in lines),
        ]
    )


def _with_error(value: float | None, error: float | None) -> str | None:
    if value is None:
        return None
    return f"{value:.4f}" if error is None else f"{value:.4f} ± {error:.4f}"


def _small(value: float | None) -> str | None:
    return None if value is None else f"{value:.2e}"


def _score(score: Score) -> str:
    more = "" if score.perplexity is None else f", perplexity {score.perplexity:.2f}"
    more += "" if score.by_length is None else f", by length {100 * score.by_length:.1f} %"
    return f"{100 * score.accuracy:.1f} % ({score.right} of {score.asked}){more}"
