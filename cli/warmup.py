"""`rwkv warmup`: compile a model's programs ahead of time."""

import time
from typing import Annotated

import typer
from rwkv_engine_cli import options as o
from rwkv_engine_cli.output import echo


def warmup(
    model: o.ModelArgument = None,
    named: o.Source = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(help="Weight format; may be given again. Default: the checkpoint's own."),
    ] = None,
    tokenizer: o.TokenizerOption = None,
    no_cache: o.NoCache = False,
) -> None:
    """Compile the programs that a model needs, so that its first start is as quick as later ones."""
    from rwkv_engine.running.compiling import programs

    chosen = o.source(model, named)
    for number, format in enumerate(weights or [None], start=1):
        engine = o.load_model(chosen, format, None, tokenizer, no_cache, tell=number == 1)
        wanted = programs(engine)
        for count, program in enumerate(wanted, start=1):
            echo(f"{count} of {len(wanted)}: {program.name}")
            start = time.perf_counter()
            program.run()
            echo(f"  ready after {time.perf_counter() - start:.1f} s")
