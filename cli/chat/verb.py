"""`rwkv chat`: a conversation with a model."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rwkv_engine_cli import options as o
from rwkv_engine_cli.output import complain, obeys
from rwkv_engine_cli.sampling import NOTHING, Chosen, restored, with_sampling

from rwkv_engine import __version__

if TYPE_CHECKING:
    from rwkv_engine_cli.chat.loop import Screen
    from rwkv_engine_cli.chat.running import Chat

    from rwkv_engine import Model, Template
    from rwkv_engine.chat import Info, Store


#: the most tokens of an answer and of a thought, unless something else is said
LIMITS = {"max_tokens": 512, "max_thoughts": 1024}


@with_sampling
def chat(
    question: Annotated[
        str | None,
        typer.Argument(
            help="Answer this and leave. Standard input is put in front of it; - or a pipe: only standard input."
        ),
    ] = None,
    model: o.Source = None,
    go_on: Annotated[bool, typer.Option("-c", "--continue", help="Continue the last conversation.")] = False,
    session: Annotated[
        str | None,
        typer.Option(
            help="Continue the conversation with this name, or start it.", autocompletion=o.session_names
        ),
    ] = None,
    no_save: Annotated[bool, typer.Option("--no-save", help="Do not keep this conversation.")] = False,
    save: Annotated[
        bool, typer.Option("--save", help="Keep it also where only one question or a pipe is answered.")
    ] = False,
    lines: Annotated[
        bool, typer.Option("--lines", help="Answer standard input line by line, as one conversation.")
    ] = False,
    extract: Annotated[
        bool, typer.Option("-x", "--extract", help="Print only the first code block of the answer.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as one JSON object.")] = False,
    verbose: o.Verbose = False,
    read_again: Annotated[
        bool,
        typer.Option(
            "--read-again",
            help="Continue a conversation that was started with another model: read all of it.",
        ),
    ] = False,
    system: Annotated[str | None, typer.Option(help="System prompt.")] = None,
    template: Annotated[
        str | None, typer.Option(help="Chat template: a name, or a Jinja file; default: the model's.")
    ] = None,
    think: Annotated[
        str | None, typer.Option(help="off, fast, on or long: how much is thought before an answer.")
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            help="Write at most this many tokens for an answer; default: 512.", callback=o.one_or_more
        ),
    ] = None,
    max_thoughts: Annotated[
        int | None,
        typer.Option(
            help="Write at most this many tokens of a thought, which --max-tokens does not count; the answer begins then. Default: 1024.",
            callback=o.one_or_more,
        ),
    ] = None,
    sampling: Chosen = NOTHING,
    schema: o.Schema = None,
    regex: o.Regex = None,
    choice: o.Choice = None,
    draft: o.Draft = None,
    weights: o.Weights = None,
    threads: o.Threads = None,
    tokenizer: o.TokenizerOption = None,
    no_cache: o.NoCache = False,
    no_prefix_cache: o.NoPrefixCache = False,
    ram: o.Ram = None,
    lora: o.Lora = None,
    lora_alpha: o.LoraAlpha = None,
) -> None:
    """Chat with a model, or answer one question.

    In a chat, /help lists the commands, ctrl-C stops an answer, and ctrl-D leaves. Conversations are saved;
    a single question is saved only with --save, --session or -c. --schema, --regex and --choice hold for
    every answer of this run; thoughts are free.
    """
    constraint = o.make_constraint(schema, regex, choice, None)
    given = {
        "model": None if model is None else o.source(model),
        "weights": weights,
        "tokenizer": tokenizer,
        "template": template,
        "think": think,
        "max_tokens": max_tokens,
        "max_thoughts": max_thoughts,
        "lora": lora,
        "lora_alpha": lora_alpha,
    }
    text = None if lines else o.read_prompt(question)
    _check_once(text, question, lines, extract or as_json, save and no_save)
    asked = go_on or session is not None or save
    store, info = _kept(go_on, session, no_save, asked or (text is None and not lines))
    wanted: dict[str, Any] = {
        **(info.settings if info else {"model": o.source(None)}),
        **{name: value for name, value in given.items() if value is not None},
    }
    wanted["sampling"] = sampling.over(restored(wanted.get("sampling")))
    if system is not None:
        wanted["system"] = system
    engine = o.load_model(
        wanted.get("model"),
        wanted.get("weights"),
        threads,
        wanted.get("tokenizer"),
        no_cache,
        ram,
        lora=wanted.get("lora"),
        lora_alpha=wanted.get("lora_alpha"),
    )
    drafts = o.draft(draft, wanted.get("weights"), threads, no_cache, ram)
    running = _open(engine, store, info, session, wanted, read_again, o.prepare(engine, drafts, long=True))
    running.conversation.draft = drafts
    running.constraint = constraint
    running.load = lambda name: _another(name, wanted, threads, no_cache, ram)
    running.prefix_cache = None if no_prefix_cache else o.prefix_cache()
    if text is not None:
        from rwkv_engine_cli.chat.once import answer_once

        if text.strip():
            answer_once(running, text, extract=extract, as_json=as_json, verbose=verbose)
        return
    from rwkv_engine_cli.chat.loop import run
    from rwkv_engine_cli.chat.outcome import recap

    screen = _screen(store, lines)
    if screen.commands:
        screen.show(
            f"rwkv-engine {__version__}, {engine.checkpoint.path.name} ({engine.format}); /help lists commands"
        )
        if info is not None:
            screen.show(recap(running.conversation))
    run(running, screen, verbose)


def _check_once(text: str | None, question: str | None, lines: bool, formed: bool, both: bool) -> None:
    """Raises OptionError for options that do not go together."""
    from rwkv_engine.errors import OptionError

    if lines and question is not None:
        raise OptionError("got a question and --lines; give one of them")
    if both:
        raise OptionError("got --save and --no-save; give one of them")
    if formed and text is None:
        raise OptionError(
            "--extract and --json are for one question: give it as argument or on standard input"
        )


def _kept(go_on: bool, name: str | None, no_save: bool, keep: bool) -> "tuple[Store | None, Info | None]":
    """(the store, the session to continue). Raises OptionError, SessionError."""
    from rwkv_engine.chat import Store
    from rwkv_engine.errors import OptionError, SessionError

    if (go_on or name is not None) and no_save:
        raise OptionError("--no-save keeps nothing, so it goes neither with -c nor with --session")
    if go_on and name is not None:
        raise OptionError("got -c and --session; give one of them")
    if no_save or not keep:
        return None, None
    try:
        store = Store()
    except SessionError as error:
        if go_on or name is not None:
            raise
        complain(f"{error}; this conversation is not kept")
        return None, None
    store.collect()
    info = store.find(name) if name is not None else store.last() if go_on else None
    if go_on and info is None:
        raise SessionError(
            "no conversation is kept yet, so there is none to go on with; start one with: rwkv chat"
        )
    return store, info


def _open(
    engine: "Any",
    store: "Store | None",
    info: "Info | None",
    name: str | None,
    wanted: dict[str, Any],
    read_again: bool,
    preparation: o.Preparation,
) -> "Chat":
    """The conversation to continue, or a new one."""
    from rwkv_engine_cli.chat.running import Chat

    from rwkv_engine.chat import Session
    from rwkv_engine.chat.conversation import Conversation
    from rwkv_engine.text.templates import find_template

    packing = engine.checkpoint.packing
    inside = packing.template if packing else None
    form = find_template(engine.config.vocab, inside, wanted.get("template"), engine.checkpoint.files)
    session: Session | None
    if info is not None and store is not None:
        kept = Session.open(store, info, engine, form, read_again)
        session, conversation = kept, kept.conversation
    else:
        conversation = Conversation(engine, form)
        session = Session(store, conversation, name) if store else None
    conversation.set_think(wanted.get("think", "off"))
    conversation.system = wanted.get("system")
    # for the next time, from whatever folder that will be
    source: dict[str, Any] = {
        key: _absolute(wanted.get(key)) for key in ("model", "weights", "tokenizer", "template", "lora")
    }
    source["lora_alpha"] = wanted.get("lora_alpha")
    limits = {name: wanted.get(name, default) for name, default in LIMITS.items()}
    return Chat(
        engine, form, session, conversation, store, wanted["sampling"], limits, source, complain, preparation
    )


def _another(
    name: str, wanted: dict[str, Any], threads: int | None, no_cache: bool, ram: str | None
) -> "tuple[Model, Template]":
    """Another model and its template, in the format that this run asked for."""
    engine = o.load_model(
        None if name == "embedded" else name, wanted.get("weights"), threads, None, no_cache, ram, tell=False
    )
    return engine, engine.template


def _absolute(value: str | None) -> str | None:
    """An absolute path. A link stays a link, because other files may be beside it and not beside its target."""
    return str(Path(value).absolute()) if value is not None and Path(value).exists() else value


def _screen(store: "Store | None", lines: bool) -> "Screen":
    """A terminal's screen if input and output are one that knows escape sequences, else the plain one."""
    if not lines and sys.stdin.isatty() and obeys(sys.stdout):
        from rwkv_engine_cli.chat.terminal import Terminal

        from rwkv_engine import watch_compiling

        terminal = Terminal(store.folder / "history" if store else None)
        watch_compiling(terminal.compiling)
        return terminal
    from rwkv_engine_cli.chat.plain import Plain

    return Plain(lines)
