"""Options that several verbs share, and the model, text and constraint that they stand for."""

import functools
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rwkv_engine_cli.preparing import Preparation

if TYPE_CHECKING:
    from rwkv_engine import Constraint, Model, PrefixCache


def one_or_more(option: typer.CallbackParam, value: int | None) -> int | None:
    """The callback of an option that counts tokens."""
    from rwkv_engine import OptionError

    if value is not None and value < 1:
        raise OptionError.of(option.opts[0], value, "a whole number of 1 or more")
    return value


def model_names(incomplete: str) -> list[str]:
    """Short names of models that begin so, for a shell that completes one."""
    from rwkv_engine.errors import EngineError
    from rwkv_engine.library.registry import INCLUDED, names

    try:
        return [name for name in [*names(), *INCLUDED] if name.startswith(incomplete)]
    except EngineError:
        return []


def session_names(incomplete: str) -> list[str]:
    """Names of kept conversations that begin so."""
    from rwkv_engine.chat import Store
    from rwkv_engine.errors import EngineError

    try:
        return [info.name for info in Store().infos() if info.name.startswith(incomplete)]
    except EngineError:
        return []


_MODEL = "Model file, folder, or short name; default: $RWKV_MODEL, else `rwkv models default`."
Source = Annotated[
    str | None,
    typer.Option("-m", "--model", help=_MODEL, autocompletion=model_names),
]
ModelArgument = Annotated[
    str | None,
    typer.Argument(metavar="MODEL", help=_MODEL, show_default=False, autocompletion=model_names),
]
Weights = Annotated[
    str | None,
    typer.Option(
        help="Weight format: f32, bf16, f16, int8, int5 or int4; default: the checkpoint's own, for a quantized GGUF int8 or int4."
    ),
]
Threads = Annotated[
    int | None, typer.Option(help="Threads; default: as many physical cores as the work is worth.")
]
NoCache = Annotated[
    bool,
    typer.Option("--no-cache", help="Neither read nor keep what --weights int8, int5 or int4 makes of it."),
]
TokenizerOption = Annotated[
    str | None,
    typer.Option("--tokenizer", help="world, bytes, or a tokenizer.json; default: what fits the model."),
]
Ram = Annotated[
    str | None,
    typer.Option(
        help="Stay under this much memory, such as 900M or 2GiB; weights that do not fit are read from the file again for each token."
    ),
]
Lora = Annotated[
    str | None,
    typer.Option(help="Merge this LoRA into the model: a file (.pth, safetensors) or a PEFT folder."),
]
LoraAlpha = Annotated[
    float | None, typer.Option(help="The alpha that the LoRA was trained with; a PEFT folder knows it.")
]
MaxTokens = Annotated[int, typer.Option(help="Write at most this many tokens.", callback=one_or_more)]
Force = Annotated[bool, typer.Option("--force", help="Write over an existing file.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Verbose = Annotated[
    bool, typer.Option("-v", "--verbose", help="Also tell speeds, times, peak memory and why it stopped.")
]
NoPrefixCache = Annotated[
    bool, typer.Option("--no-prefix-cache", help="Neither look up nor keep the states behind long prompts.")
]
Draft = Annotated[
    str | None,
    typer.Option(
        help="Draft tokens, of which a pass over the weights can check several; the text stays the same. ngram or auto drafts from the "
        "text itself, none drafts nothing, and a small model of the same vocabulary drafts too. Default: auto; with --ram, none."
    ),
]
Schema = Annotated[
    str | None, typer.Option(help="Write JSON that fits this JSON schema: a file, or the schema itself.")
]
Regex = Annotated[
    str | None, typer.Option(help="Write what this regular expression matches from end to end.")
]
Choice = Annotated[list[str] | None, typer.Option(help="Write one of these texts; given once for each.")]
After = Annotated[
    str | None,
    typer.Option(help="The form above holds only after this text, such as </think>; before it, all is free."),
]


def source(model: str | None, named: str | None = None) -> str | None:
    """The model to use: the argument, else -m, else $RWKV_MODEL, else the default; None: the embedded
    model.

    Raises OptionError.
    """
    from rwkv_engine import OptionError

    if model is not None and named is not None:
        raise OptionError("got a model as argument and with --model; give one of them")
    said = model if model is not None else named
    if said is not None and not said.strip():
        raise OptionError.of("--model", said, "a file, a folder, or a short name")
    if said is not None:
        return said
    from rwkv_engine.library.default_model import default_model

    return os.environ.get("RWKV_MODEL") or default_model()


def load_model(
    source: str | None,
    weights: str | None,
    threads: int | None,
    tokenizer: str | None,
    no_cache: bool,
    ram: str | None = None,
    tell: bool = True,
    lora: str | None = None,
    lora_alpha: float | None = None,
) -> "Model":
    """Load the model that the options name; compiling is shown from then on."""
    import rwkv_engine

    if tell:
        show_compiling()
    return rwkv_engine.load(
        source,
        weights,
        threads,
        tokenizer=tokenizer,
        cache=not no_cache,
        ram=ram,
        lora=lora,
        lora_alpha=lora_alpha,
    )


def draft(
    wanted: str | None, weights: str | None, threads: int | None, no_cache: bool, ram: str | None
) -> "Model | str":
    """The value of --draft as `Model.generate` takes it; a model is loaded, in the format `weights`."""
    if wanted is None:
        return "auto" if ram is None else "none"
    if wanted in ("auto", "ngram", "none"):
        return wanted
    return load_model(wanted, weights, threads, None, no_cache)


@functools.cache
def show_compiling() -> None:
    """Show compiling from now on; once for a process is enough."""
    from rwkv_engine_cli.progress import Compiling

    from rwkv_engine import watch_compiling

    watch_compiling(Compiling())


def prepare(engine: "Model", draft: "Model | str | None", long: bool) -> Preparation:
    """What makes the first word of a model quick; see `Preparation`."""
    return Preparation(engine, *([] if draft is None or isinstance(draft, str) else [draft]), long=long)


def prefix_cache() -> "PrefixCache | None":
    """The user's cache of prompt prefixes; None for a user without a home folder."""
    from rwkv_engine import PrefixCache

    try:
        return PrefixCache()
    except OSError:
        return None


def make_constraint(
    schema: str | None, regex: str | None, choices: list[str] | None, after: str | None
) -> "Constraint | None":
    """The constraint of the options. Raises OptionError, also for more than one, and MissingExtra."""
    from rwkv_engine import OptionError

    given = [
        name
        for name, value in (("--schema", schema), ("--regex", regex), ("--choice", choices))
        if value is not None
    ]
    if len(given) > 1:
        raise OptionError(f"got {' and '.join(given)}; give one of them")
    if not given:
        if after is not None:
            raise OptionError("--after: give --schema, --regex or --choice with it")
        return None
    from rwkv_engine import Constraint

    if schema is not None:
        text = schema if schema.lstrip()[:1] in ("{", "[") else _schema_file(Path(schema))
        return Constraint.json_schema(text, after=after)
    return (
        Constraint.regex(regex, after=after)
        if regex is not None
        else Constraint.choice(choices or [], after=after)
    )


def _schema_file(path: Path) -> str:
    from rwkv_engine import OptionError

    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise OptionError(f"--schema {path}: {getattr(error, 'strerror', None) or error}") from None


def read_prompt(argument: str | None, file: Path | None = None) -> str | None:
    """The prompt: standard input, if it is a pipe or a file, followed by the argument or --file.

    "-" as argument means standard input alone. None: there is no prompt, and standard input is a terminal.
    Raises OptionError.
    """
    from rwkv_engine import OptionError

    if argument is not None and file is not None:
        raise OptionError("got a prompt and --file; give one of them")
    if file is not None:
        return read_text(file)
    if argument == "-":
        return read_text(None)
    if argument is None:
        return None if sys.stdin.isatty() else read_text(None)
    piped = read_text(None).rstrip("\n") if _brings_text() else ""
    return f"{piped}\n{argument}" if piped.strip() else argument


def _brings_text() -> bool:
    """Whether standard input is a pipe or a file."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError):  # no file at all, as in tests
        return not sys.stdin.isatty()
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


def read_text(path: Path | None) -> str:
    """A file's text as UTF-8, or standard input's for None. Raises OptionError."""
    from rwkv_engine import OptionError

    try:
        data = sys.stdin.buffer.read() if path is None else path.read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise OptionError(f"--file {path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise OptionError(
            f"{path or 'standard input'}: not UTF-8 text (byte {error.start}); convert it first"
        ) from None


def write_text(path: Path, text: str, option: str) -> None:
    """Write a text file, whole or not at all. Raises OptionError if it cannot be written."""
    from rwkv_engine import OptionError
    from rwkv_engine.system.files import write_whole

    try:
        write_whole(path, [text.encode()])
    except OSError as error:
        raise OptionError(f"{option} {path}: {error.strerror or error}") from None
