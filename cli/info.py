"""`rwkv info`: what a checkpoint is."""

import json
from dataclasses import asdict
from math import prod
from typing import Annotated

import typer
from rwkv_engine_cli import options as o


def info(
    model: Annotated[
        str | None,
        typer.Argument(help="Checkpoint file, folder, or short name; default: the embedded model."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    ram: Annotated[
        bool, typer.Option("--ram", help="Tell also how much memory it takes in each weight format.")
    ] = False,
    tokenizer: o.TokenizerOption = None,
) -> None:
    """Tell a checkpoint's family, sizes, layout, parameters, bytes and tokenizer."""
    from rwkv_engine import families, memory
    from rwkv_engine.kernels.int8_levels import chosen
    from rwkv_engine.loading import open_named
    from rwkv_engine.numbers.sizes import mb
    from rwkv_engine.system import cpu, process
    from rwkv_engine.text import find_tokenizer

    checkpoint = open_named(model)
    tensors = checkpoint.tensors
    config = families.config_of(checkpoint)
    inside = checkpoint.packing.tokenizer if checkpoint.packing else None
    state = sum(prod(plane.shape) * 4 for plane in families.family_of(config).planes(config))
    rows = {
        "path": str(checkpoint.path),
        "family": f"RWKV-{config.version}",
        "layout": f"{checkpoint.layout} ({checkpoint.container})",
        "layers": config.layers,
        "width": config.width,
        "heads": f"{config.heads} x {config.head_size}",
        "ffn": config.ffn,
        "vocabulary": config.vocab,
        "parameters": sum(prod(tensor.shape) for tensor in tensors.values()),
        "types": ", ".join(sorted({tensor.dtype for tensor in tensors.values()})),
        "weight bytes": sum(tensor.nbytes for tensor in tensors.values()),
        "state bytes": state,
        "tokenizer": find_tokenizer(config.vocab, checkpoint.files, tokenizer, inside).name,
        "processor": f"{cpu.name()}, {cpu.physical_cores()} cores, integer kernels: {chosen()}",
    }
    found = memory.estimates(checkpoint) if ram else {}
    if as_json:
        if ram:
            rows["ram"] = {
                name: {**asdict(one), "total": one.total, "least": one.least} for name, one in found.items()
            }
        typer.echo(json.dumps(rows))
        return
    for name, value in rows.items():
        typer.echo(f"{name:<14}{value:,}" if isinstance(value, int) else f"{name:<14}{value}")
    for name, one in found.items():
        typer.echo(f"ram {name:<10}{one.sum()}; at least {mb(one.least)}")
    if found:
        typer.echo(
            f"              and up to {mb(next(iter(found.values())).embedding)} of the embedding, by the text's tokens;"
        )
        typer.echo(
            f"              compiling for the first time (rwkv warmup) takes {mb(process.COMPILING)} more"
        )
