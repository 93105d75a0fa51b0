"""`rwkv quantize`: write a checkpoint as a packed file that loads at once."""

from pathlib import Path
from typing import Annotated

import typer
from rwkv_engine_cli import options as o
from rwkv_engine_cli.output import complain, progress, tell
from rwkv_engine_cli.tables import print_rows


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
    calibrate: Annotated[
        list[str] | None,
        typer.Option(
            help="UTF-8 text on which errors of int5 or int4 are made to cancel, or the word embedded; several: again."
        ),
    ] = None,
    tokens: Annotated[
        int, typer.Option(help="Read at most this many tokens of what --calibrate names.")
    ] = 8000,
    threads: o.Threads = None,
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
    if calibrate:
        if lora is not None or lora_alpha is not None:
            raise rwkv_engine.OptionError("--calibrate: it does not go with --lora; merge the LoRA first")
        _calibrated(source, target, format or "int4", calibrate, tokens, tokenizer, template, threads)
        return
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


def _calibrated(
    source: str,
    target: Path,
    format: str,
    texts: list[str],
    tokens: int,
    tokenizer: str | None,
    template: str | None,
    threads: int | None,
) -> None:
    """Quantize with `calibrate`, and print what it lost."""
    import rwkv_engine

    done = rwkv_engine.calibrate(
        source,
        target,
        texts,
        format,
        tokens=tokens,
        tokenizer=tokenizer,
        template=template,
        threads=threads,
        tell=lambda line: progress(f"{line} ..."),
    )
    progress("", last=True)
    rows = [("text, not fitted on", f"mean KL of {format}", "calibrated")]
    print_rows(
        rows + [(one.text, f"{one.plain:.1e}", f"{one.calibrated:.1e}") for one in done.losses], heads=True
    )
    tell(f"{target}: {target.stat().st_size:,} bytes")
    if done.warning is not None:
        complain(done.warning)
