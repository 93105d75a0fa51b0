"""The commands of a talk: a table of what begins with a slash."""

import dataclasses
import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from rwkv_engine_cli.sampling import FIELDS, SINGLE, value
from rwkv_engine_cli.talk.running import Talk

from rwkv_engine.chat import Session
from rwkv_engine.chat.answer import Part
from rwkv_engine.chat.conversation import Conversation
from rwkv_engine.errors import OptionError
from rwkv_engine.numbers.sizes import size
from rwkv_engine.writing.sampling import PRESETS, Sampling
from rwkv_engine.writing.step import Usage

#: what /set changes
SETTABLE = (*SINGLE, "max_tokens")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What comes of a line: text to show, an answer to stream, a question to edit, or the end of the talk."""

    text: str = ""
    parts: Iterator[Part] | None = None
    edit: str | None = None
    leave: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """A row of the table.

    name     without its slash.    usage  what may follow it.    does  one line for /help.
    run      does it; choices  what may be completed behind it.
    """

    name: str
    usage: str
    does: str
    run: Callable[[Talk, str], Outcome]
    choices: Callable[[Talk], Sequence[str]] = lambda talk: ()


def obey(talk: Talk, line: str) -> Outcome:
    """Do what a line that begins with a slash says. Raises OptionError, with the nearest command, for one that is unknown."""
    word, _, argument = line[1:].strip().partition(" ")
    command = COMMANDS.get(word.lower())
    if command is None:
        near = difflib.get_close_matches(word.lower(), COMMANDS, 1, 0.3)
        hint = f"did you mean /{near[0]}?" if near else "/help lists them"
        raise OptionError(f"/{word}: there is no such command; {hint}")
    if argument.strip() and not command.usage:
        raise OptionError(f"/{command.name} takes nothing; got {argument.strip()!r}")
    return command.run(talk, argument.strip())


def _help(talk: Talk, argument: str) -> Outcome:
    rows = [(f"/{command.name} {command.usage}".rstrip(), command.does) for command in COMMANDS.values()]
    width = max(len(usage) for usage, _ in rows)
    lines = [f"{usage:<{width}}  {does}" for usage, does in rows]
    return Outcome(
        "\n".join(
            [
                *lines,
                "",
                "alt-Enter, or a \\ at the end of a line: a new line.  // : say a text that begins with /.",
            ]
        )
    )


def _undo(talk: Talk, argument: str) -> Outcome:
    gone = talk.conversation.undo(_number(argument or "1", "/undo"))
    talk.keep()
    return Outcome(
        f"taken back: {_short(gone[0].user)}" + (f" and {len(gone) - 1} more" if len(gone) > 1 else "")
    )


def _retry(talk: Talk, argument: str) -> Outcome:
    if talk.sampling.temperature == 0:
        talk.warn("temperature is 0, so the answer will be the same; /set temperature 1 for another")
    return Outcome(parts=talk.retry())


def _edit(talk: Talk, argument: str) -> Outcome:
    if argument:
        return Outcome(parts=talk.edit(argument))
    if not talk.conversation.turns:
        raise OptionError("/edit: nothing has been said yet")
    return Outcome(edit=talk.conversation.turns[-1].user)


def _system(talk: Talk, argument: str) -> Outcome:
    told = talk.conversation
    if argument:
        told.system = None if argument == "none" else argument
        return Outcome(
            "nothing will be told"
            if told.system is None
            else "told with your next message, and in force from there on"
        )
    said = [told.system] if told.system else [turn.system for turn in reversed(told.turns) if turn.system]
    return Outcome(said[0] or "" if said else "no system text; /system TEXT sets one")


def _think(talk: Talk, argument: str) -> Outcome:
    if argument and argument != "show":
        talk.conversation.set_think(argument)  # type: ignore[arg-type]  # it checks
        return Outcome(f"think: {argument}")
    thought = next((turn.thinking for turn in reversed(talk.conversation.turns) if turn.thinking), "")
    if argument == "show":
        return Outcome(thought or "no answer of this talk was thought about")
    return Outcome(
        f"think: {talk.conversation.think}; there is {', '.join(talk.template.thinks)}; /think show unfolds the last thought"
    )


def _preset(talk: Talk, argument: str) -> Outcome:
    if not argument:
        return Outcome("presets: " + ", ".join(PRESETS))
    talk.sampling = dataclasses.replace(Sampling.preset(argument), seed=talk.sampling.seed)
    return _set(talk, "")


def _set(talk: Talk, argument: str) -> Outcome:
    name, _, word = argument.replace("=", " ", 1).partition(" ")
    name, word = name.replace("-", "_"), word.strip()
    if argument and name not in SETTABLE:
        near = difflib.get_close_matches(name, SETTABLE, 1, 0.3)
        raise OptionError.of("/set", name, f"one of {', '.join(SETTABLE)}", f"{near[0]}?" if near else "")
    if word and name == "max_tokens":
        talk.max_tokens = _number(word, "/set max_tokens")
    elif word:
        new = value(name, word, f"/set {name}")
        talk.sampling = dataclasses.replace(talk.sampling, **{FIELDS[name].name: new})
    values = {n: getattr(talk.sampling, FIELDS[n].name) for n in SINGLE} | {"max_tokens": talk.max_tokens}
    wanted = [name] if argument else list(values)
    return Outcome("  ".join(f"{n} {values[n] if values[n] is not None else 'none'}" for n in wanted))


def _save(talk: Talk, argument: str) -> Outcome:
    _current(talk).fork(_named(argument, "/save"), talk.settings())
    talk.keep()  # last, so that it is this talk that `rwkv chat -c` goes on with
    return Outcome(f"kept as {argument!r}; /load {argument} comes back to this point")


def _load(talk: Talk, argument: str) -> Outcome:
    store = talk.need_store()
    kept = Session.open(store, store.info(_named(argument, "/load")), talk.model, talk.template)
    talk.enter(
        Session(store, kept.conversation, store.free_name(argument))
    )  # a copy, kept from its next turn on
    return Outcome(f"a copy of {argument!r}, {_extent(talk.conversation)}")


def _fork(talk: Talk, argument: str) -> Outcome:
    talk.keep()
    before = talk.name
    talk.enter(_current(talk).fork(_named(argument, "/fork"), talk.settings()))
    return Outcome(f"now in {argument!r}; {before!r} stays as it is")


def _switch(talk: Talk, argument: str) -> Outcome:
    store = talk.need_store()
    info = store.info(_named(argument, "/switch"))
    talk.enter(Session.open(store, info, talk.model, talk.template))
    talk.keep()
    return Outcome(f"now in {argument!r}, {_extent(talk.conversation)}")


def _sessions(talk: Talk, argument: str) -> Outcome:
    infos = talk.need_store().infos()
    if not infos:
        return Outcome("no session is kept yet")
    width = max(len(info.name) for info in infos)
    rows = []
    for info in infos:
        here = "*" if info.name == talk.name else " "
        when = datetime.fromtimestamp(info.changed).strftime("%Y-%m-%d %H:%M")
        rows.append(f"{here} {info.name:<{width}}  {when}  {extent(info.turns, info.tokens)}")
    return Outcome("\n".join(rows))


def _tokens(talk: Talk, argument: str) -> Outcome:
    turns = talk.conversation.turns
    last = f"; the last one {len(turns[-1].tokens):,}" if turns else ""
    return Outcome(f"{_extent(talk.conversation)}{last}")


def _stats(talk: Talk, argument: str) -> Outcome:
    used = talk.usage or Usage(0, 0, 0, 0.0, 0.0)
    known = f" ({used.cached_tokens:,} of them cached)" if used.cached_tokens else ""
    rows = [
        (
            "model",
            f"RWKV-{talk.model.config.version}, {talk.model.format}, {size(talk.model.weight_bytes)} read for a token",
        ),
        ("read", f"{used.prompt_tokens:,} tokens{known} in {used.prompt_seconds:.2f} s"),
        (
            "written",
            f"{used.tokens:,} tokens in {used.seconds - used.prompt_seconds:.2f} s, {used.rate:,.0f} tokens/s",
        ),
        (
            "state",
            f"{size(talk.state_bytes)}, whatever the length; {len(talk.conversation.kept())} in memory",
        ),
    ]
    if talk.store is not None:
        rows.append(
            (
                "on disk",
                f"{size(talk.store.state_bytes(talk.conversation.turns))} of states in {talk.store.folder}",
            )
        )
    return Outcome("\n".join(f"{name:<9}{value}" for name, value in rows))


def _current(talk: Talk) -> Session:
    """The session to copy. Raises OptionError if nothing has been said."""
    if not talk.conversation.turns:
        raise OptionError("nothing has been said yet")
    store = talk.need_store()
    return talk.session or Session(store, talk.conversation)


def _extent(conversation: Conversation) -> str:
    return extent(len(conversation.turns), conversation.tokens)


def extent(turns: int, tokens: int) -> str:
    """How long a talk is, for people."""
    return f"{tokens:,} tokens in {turns} turn{'s' * (turns != 1)}"


def _named(argument: str, command: str) -> str:
    if not argument:
        raise OptionError(f"{command}: want the name of a session")
    return argument


def _number(text: str, what: str) -> int:
    if not text.strip().isdecimal() or int(text) < 1:
        raise OptionError(f"{what}: got {text.strip()!r}, want a whole number of 1 or more")
    return int(text)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 50 else line[:47] + "..."


def _names(talk: Talk) -> list[str]:
    return [info.name for info in talk.store.infos()] if talk.store else []


COMMANDS = {
    command.name: command
    for command in (
        Command("help", "", "this list", _help),
        Command("undo", "[N]", "take back the last N turns (1)", _undo),
        Command("retry", "", "answer the last question again", _retry),
        Command("edit", "[TEXT]", "change the last question and have it answered", _edit),
        Command(
            "system",
            "[TEXT]",
            "tell the model how to be, from the next message on; none takes it back",
            _system,
        ),
        Command(
            "think",
            "[MODE]",
            "off, fast, on or long; show unfolds the last thought",
            _think,
            lambda t: [*t.template.thinks, "show"],
        ),
        Command("preset", "[NAME]", "sampling by name", _preset, lambda t: list(PRESETS)),
        Command(
            "set",
            "[NAME VALUE]",
            "one number of the sampling, or max_tokens",
            _set,
            lambda t: SETTABLE,
        ),
        Command("save", "NAME", "keep a copy of the talk as it is now", _save),
        Command("load", "NAME", "go on from a copy of a kept talk", _load, _names),
        Command("fork", "NAME", "go on in a copy; the talk itself stays as it is", _fork),
        Command("switch", "NAME", "go on with another talk", _switch, _names),
        Command("sessions", "", "the kept talks; * is this one", _sessions),
        Command("tokens", "", "how long the talk is", _tokens),
        Command("stats", "", "speed and sizes", _stats),
        Command("quit", "", "leave; so does ctrl-D", lambda talk, argument: Outcome(leave=True)),
    )
}
