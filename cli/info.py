"""`rwkv info`: what a checkpoint is."""

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rwkv_engine_cli import options as o
from rwkv_engine_cli.output import echo, tell
from rwkv_engine_cli.tables import print_rows


def info(
    model: o.ModelArgument = None,
    named: o.Source = None,
    as_json: o.Json = False,
    ram: Annotated[
        bool, typer.Option("--ram", help="Tell also how much memory it takes in each weight format.")
    ] = False,
    tokenizer: o.TokenizerOption = None,
    lora: o.Lora = None,
    lora_alpha: o.LoraAlpha = None,
) -> None:
    """Show a checkpoint's family, sizes, layout, parameters, bytes and tokenizer."""
    import rwkv_engine
    from rwkv_engine.numbers.sizes import mb

    found = rwkv_engine.describe(
        o.source(model, named), tokenizer=tokenizer, lora=lora, lora_alpha=lora_alpha
    )
    if as_json:
        rows = asdict(found)
        for name, one in found.memory.items():
            rows["memory"][name] |= {"total": one.total, "least": one.least}
        echo(json.dumps(rows))
        return
    print_rows(
        [
            ("path", found.path),
            ("family", found.family),
            ("layout", f"{found.layout} ({found.container})"),
            ("layers", f"{found.layers:,}"),
            ("width", f"{found.width:,}"),
            ("heads", f"{found.heads} x {found.head_size}"),
            ("ffn", f"{found.ffn:,}"),
            ("vocabulary", f"{found.vocabulary:,}"),
            ("parameters", f"{found.parameters:,}"),
            ("types", ", ".join(found.types)),
            ("matrices", f"{', '.join(found.matrices)}, run as {found.runs_as}"),
            ("weights", f"{found.weight_bytes:,} bytes"),
            ("state", f"{found.state_bytes:,} bytes"),
            ("tokenizer", found.tokenizer),
            ("processor", found.processor),
        ]
    )
    if ram:
        for name, one in found.memory.items():
            tell(f"{f'ram {name}':<12}{one.sum()}; at least {mb(one.least)}")
        embedding = next(iter(found.memory.values())).embedding
        tell(f"            and up to {mb(embedding)} of the embedding, by the text's tokens;")
        tell(f"            compiling for the first time (rwkv warmup) takes {mb(found.compiling)} more")
