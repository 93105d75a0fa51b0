"""`rwkv tokenize`: text to token ids and back."""

from pathlib import Path
from typing import Annotated

import typer
from rwkv_engine_cli import options as o


def tokenize(
    text: Annotated[str | None, typer.Argument(help="Text; without it, --file or standard input.")] = None,
    file: Annotated[Path | None, typer.Option("-f", "--file", help="Read the text from this file.")] = None,
    model: o.Source = None,
    tokenizer: o.TokenizerOption = None,
    decode: Annotated[
        bool, typer.Option("--decode", help="The text is token ids; print what they stand for.")
    ] = False,
    pieces: Annotated[bool, typer.Option("--pieces", help="One line per token: id and bytes.")] = False,
    count: Annotated[bool, typer.Option("--count", help="Print only how many tokens it is.")] = False,
) -> None:
    """Print the token ids of a text, or the text of token ids."""
    from rwkv_engine import OptionError

    if text is not None and file is not None:
        raise OptionError("got a text and --file; give one of them")
    text = o.read_text(file) if text is None else text
    words = _tokenizer(model, tokenizer)
    if decode:
        try:
            ids = [int(word) for word in text.replace(",", " ").split()]
        except ValueError:
            raise OptionError("--decode: want token ids, whole numbers with spaces between them") from None
        typer.echo(words.decode(ids))
        return
    ids = words.encode(text)
    if count:
        typer.echo(len(ids))
    elif pieces:
        for token in ids:
            typer.echo(f"{token:>6}  {words.token_bytes(token)!r}")
    else:
        typer.echo(" ".join(map(str, ids)))


def _tokenizer(model: str | None, choice: str | None):  # type: ignore[no-untyped-def]
    """The tokenizer an option names, or the model's."""
    from rwkv_engine import families
    from rwkv_engine.loading import open_named
    from rwkv_engine.text import find_tokenizer

    checkpoint = open_named(model)
    vocab = families.config_of(checkpoint).vocab
    inside = checkpoint.packing.tokenizer if checkpoint.packing else None
    return find_tokenizer(vocab, checkpoint.files, choice, inside)
