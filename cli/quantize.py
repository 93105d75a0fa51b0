"""`rwkv quantize`: write a checkpoint as a packed file that loads at once."""

from pathlib import Path
from typing import Annotated

import typer
from rwkv_engine_cli import options as o
from rwkv_engine_cli.output import progress, tell


def quantize(
    source: Annotated[str, typer.Argument(help="Model file, folder, or short name.")],
    target: Annotated[Path, typer.Argument(help="File to write, such as model-int8.safetensors.")],
    format: Annotated[
        str | None, typer.Option("--format", help="Quantized weight format: int8 (default), int5 or int4.")
    ] = None,
    force: o.Force = False,
    tokenizer: o.TokenizerOption = None,
    template: Annotated[
        str | None, typer.Option(help="Chat template to put inside: a name, or a Jinja file.")
    ] = None,
    lora: o.Lora = None,
    lora_alpha: o.LoraAlpha = None,
) -> None:
    """Pack a checkpoint: quantized matrices, and the tokenizer inside. It then loads without copying."""
    import rwkv_engine
    from rwkv_engine.formats import DEFAULT
    from rwkv_engine.loading import open_named
    from rwkv_engine.tools.quantize import packed_bytes

    if target.exists() and not force:
        raise rwkv_engine.OptionError(
            f"{target} exists; give another name, or --force to write over it", path=target
        )
    chosen = DEFAULT if format is None else format
    whole, done = packed_bytes(open_named(source), chosen), 0

    def count(bytes_more: int) -> None:
        nonlocal done
        done += bytes_more
        progress(f"{target.name}: {100 * done // max(1, whole)} %")

    try:
        rwkv_engine.quantize(
            source,
            target,
            chosen,
            tokenizer=tokenizer,
            template=template,
            progress=count,
            lora=lora,
            lora_alpha=lora_alpha,
        )
    finally:
        progress("")
    tell(f"{target}: {target.stat().st_size:,} bytes")
