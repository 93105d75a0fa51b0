"""`rwkv tokenize`: text to token ids and back."""

from pathlib import Path
from typing import Annotated

import typer
from rwkv_engine_cli import options as o
from rwkv_engine_cli.output import echo


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
    from rwkv_engine.loading import tokenizer_of

    if text is not None and file is not None:
        raise OptionError("got a text and --file; give one of them")
    text = o.read_text(file) if text is None else text
    words = tokenizer_of(o.source(model), tokenizer)
    if decode:
        try:
            ids = [int(word) for word in text.replace(",", " ").split()]
        except ValueError:
            raise OptionError("--decode: want token ids, whole numbers with spaces between them") from None
        echo(words.decode(ids))
        return
    ids = words.encode(text)
    if count:
        echo(len(ids))
    elif pieces:
        for token in ids:
            echo(f"{token:>6}  {words.token_bytes(token)!r}")
    else:
        echo(" ".join(map(str, ids)))
