"""`rwkv serve`: an HTTP server with OpenAI's API."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rwkv_engine_cli import options as o
from rwkv_engine_cli.output import echo
from rwkv_engine_cli.sampling import NOTHING, Chosen, with_sampling


@with_sampling
def serve(
    models: Annotated[
        list[str] | None,
        typer.Option(
            "-m",
            "--model",
            help="Model, or NAME=MODEL; may be given again. Default: $RWKV_MODEL, else `rwkv models default`.",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any that is free.")
    ] = 8000,
    api_key_file: Annotated[
        Path | None, typer.Option(help="File with API keys, one on a line. $RWKV_API_KEY is another.")
    ] = None,
    no_key: Annotated[
        bool, typer.Option("--no-key", help="Let everybody in, also from other machines.")
    ] = False,
    cors: Annotated[
        list[str] | None,
        typer.Option(help="Web pages of this origin may use the server; may be given again."),
    ] = None,
    sampling: Chosen = NOTHING,
    max_sequences: Annotated[int, typer.Option(min=1, help="Most texts at once on one model.")] = 32,
    max_queue: Annotated[int, typer.Option(min=0, help="Most requests that wait for a place.")] = 256,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of one text.")] = 8192,
    max_prompt: Annotated[int, typer.Option(min=1, help="Most tokens of one prompt.")] = 1 << 20,
    max_body: Annotated[int, typer.Option(min=1, help="Most bytes of one request.")] = 16 << 20,
    max_seconds: Annotated[float, typer.Option(min=0, help="Most seconds of one request; 0: any.")] = 0.0,
    grace: Annotated[
        float, typer.Option(min=0, help="Seconds for running texts to end when the server is stopped.")
    ] = 5.0,
    weights: o.Weights = None,
    threads: o.Threads = None,
    tokenizer: o.TokenizerOption = None,
    no_cache: o.NoCache = False,
    no_prefix_cache: o.NoPrefixCache = False,
    no_save: Annotated[
        bool, typer.Option("--no-save", help="Keep states in memory only, not in the data folder.")
    ] = False,
    ram: Annotated[
        str | None,
        typer.Option(
            help="All models together stay under this much memory, such as 8GiB; the oldest is unloaded."
        ),
    ] = None,
    log_requests: Annotated[
        bool,
        typer.Option("--log-requests", help="Log each request: address, path and status, never its text."),
    ] = False,
) -> None:
    """Serve models over HTTP with OpenAI's API: /v1/chat/completions and more.

    See docs/server.md.
    """
    from rwkv_engine.errors import OptionError
    from rwkv_engine.numbers.sizes import bytes_of
    from rwkv_engine.serve.running import Limits, Loader, Settings, data_folder, need_key, run

    keys = [os.environ["RWKV_API_KEY"]] if os.environ.get("RWKV_API_KEY") else []
    if api_key_file is not None:
        try:
            keys += [line.strip() for line in api_key_file.read_text("utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise OptionError(
                f"--api-key-file {api_key_file}: {getattr(error, 'strerror', None) or error}"
            ) from None
    need_key(host, keys, no_key)
    settings = Settings(
        sources=_sources(models or []),
        sampling=sampling.over(),
        limits=Limits(max_body, max_prompt, max_tokens, max_seconds, max_queue, max_sequences),
        ram=bytes_of(ram) if ram is not None else 0,
        keys=tuple(keys),
        origins=tuple(cors or ()),
        local=_local(host),
        folder=None if no_save else data_folder(),
        prefixes=not no_prefix_cache,
        grace=grace,
    )
    o.show_compiling()
    loader = Loader(weights, threads, tokenizer, not no_cache)
    run(settings, loader, host, port, log_requests, echo)


def _local(host: str) -> bool:
    from rwkv_engine.serve.running import is_loopback

    return is_loopback(host)


def _sources(words: list[str]) -> dict[str, str | None]:
    """The models by name: the given name, a short name, or the file name without its ending.

    Raises OptionError.
    """
    from rwkv_engine.errors import OptionError

    found: dict[str, str | None] = {}
    for word in words or [o.source(None) or ""]:
        name, given, place = word.partition("=")
        if not given or "/" in name or "." in name:
            name, place = (Path(word).stem if Path(word).suffix else Path(word).name), word
        name = name if word else "rwkv-embedded"
        if not name or name in found:
            raise OptionError(f"--model {word}: the name {name!r} is taken or empty; give NAME=MODEL")
        found[name] = place or None
    return found
