"""The commands of a conversation: a table of what begins with a slash."""

import dataclasses
import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rwkv_engine_cli.chat import keeping
from rwkv_engine_cli.chat.outcome import Outcome, first_code, how_long, number, short
from rwkv_engine_cli.chat.running import Chat
from rwkv_engine_cli.options import model_names
from rwkv_engine_cli.sampling import FIELDS, SINGLE, value

from rwkv_engine.errors import CheckpointError, OptionError
from rwkv_engine.numbers.sizes import size
from rwkv_engine.system import pages
from rwkv_engine.writing.sampling import PRESETS, Sampling

#: what /set changes: numbers of the sampling, and the limits of a thought and an answer
LIMITS = ("max_tokens", "max_thoughts")
SETTABLE = (*SINGLE, *LIMITS)


@dataclass(frozen=True, slots=True)
class Command:
    """A row of the table.

    name     without its slash.    usage  what may follow it.    does  one line for /help.
    run      does it; choices  what may be completed behind it, where so much was typed.
    """

    name: str
    usage: str
    does: str
    run: Callable[[Chat, str], Outcome]
    choices: Callable[[Chat, str], Sequence[str]] = lambda chat, begun: ()


def obey(chat: Chat, line: str) -> Outcome:
    """Do what a line that begins with a slash says.

    Raises OptionError, with the nearest command, for one that is unknown.
    """
    word, _, argument = line[1:].strip().partition(" ")
    command = COMMANDS.get(ALIASES.get(word.lower(), word.lower()))
    if command is None:
        near = difflib.get_close_matches(word.lower(), COMMANDS, 1, 0.7)
        hint = f"did you mean /{near[0]}?" if near else "/help lists them"
        raise OptionError(f"/{word}: there is no such command; {hint}")
    if argument.strip() and not command.usage:
        raise OptionError(f"/{command.name} takes nothing; got {argument.strip()!r}")
    return command.run(chat, argument.strip())


def _help(chat: Chat, argument: str) -> Outcome:
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


def _undo(chat: Chat, argument: str) -> Outcome:
    gone = chat.conversation.undo(number(argument or "1", "/undo"))
    chat.keep()
    return Outcome(
        f"taken back: {short(gone[0].user)}" + (f" and {len(gone) - 1} more" if len(gone) > 1 else "")
    )


def _retry(chat: Chat, argument: str) -> Outcome:
    if chat.sampling.temperature == 0:
        chat.warn("temperature is 0, so the answer will be the same; /set temperature 1 for another")
    return Outcome(parts=chat.retry())


def _edit(chat: Chat, argument: str) -> Outcome:
    if argument:
        return Outcome(parts=chat.edit(argument))
    if not chat.conversation.turns:
        raise OptionError("/edit: nothing has been said yet")
    return Outcome(edit=chat.conversation.turns[-1].user)


def _copy(chat: Chat, argument: str) -> Outcome:
    if argument not in ("", "code"):
        raise OptionError.of("/copy", argument, "nothing, or the word code")
    if not chat.conversation.turns:
        raise OptionError("/copy: nothing has been said yet")
    answer = chat.conversation.turns[-1].answer
    text = first_code(answer) if argument else answer
    what = "the code of the last answer" if argument else "the last answer"
    if not text:
        raise OptionError("/copy: the last answer is empty")
    return Outcome(
        f"{what}, {len(text):,} characters, was sent to the terminal for its clipboard", copied=text
    )


def _model(chat: Chat, argument: str) -> Outcome:
    if not argument:
        return Outcome(f"{chat.source['model'] or 'embedded'}; /model NAME goes on with another")
    before = chat.model
    try:
        gone = chat.change_model(argument)
    except CheckpointError as error:  # of that model: the conversation goes on with its own
        raise OptionError(f"/model: {error}") from None
    again = (
        "; it reads the conversation again" if chat.conversation.turns and before is not chat.model else ""
    )
    without = f"; without {', '.join(gone)}, given for the model before" if gone else ""
    return Outcome(f"now {chat.model.checkpoint.path.name} ({chat.model.format}){again}{without}")


def _system(chat: Chat, argument: str) -> Outcome:
    told = chat.conversation
    if argument:
        told.system = None if argument == "none" else argument
        return Outcome(
            "nothing will be told"
            if told.system is None
            else "told with your next message, and in force from there on"
        )
    said = [told.system] if told.system else [turn.system for turn in reversed(told.turns) if turn.system]
    return Outcome(said[0] or "" if said else "no system text; /system TEXT sets one")


def _think(chat: Chat, argument: str) -> Outcome:
    if argument and argument != "show":
        chat.conversation.set_think(argument)  # type: ignore[arg-type]  # it checks
        return Outcome(f"think: {argument}")
    thought = next((turn.thinking for turn in reversed(chat.conversation.turns) if turn.thinking), "")
    if argument == "show":
        return Outcome(thought or "no answer of this conversation has a thought")
    return Outcome(
        f"think: {chat.conversation.think}; there is {', '.join(chat.template.thinks)}; /think show unfolds the last thought"
    )


def _preset(chat: Chat, argument: str) -> Outcome:
    if not argument:
        return Outcome("presets: " + ", ".join(PRESETS))
    chat.sampling = dataclasses.replace(Sampling.preset(argument), seed=chat.sampling.seed)
    return _set(chat, "")


def _set(chat: Chat, argument: str) -> Outcome:
    name, _, word = argument.replace("=", " ", 1).partition(" ")
    name, word = name.replace("-", "_"), word.strip()
    if argument and name not in SETTABLE:
        near = difflib.get_close_matches(name, SETTABLE, 1, 0.3)
        raise OptionError.of("/set", name, f"one of {', '.join(SETTABLE)}", f"{near[0]}?" if near else "")
    if word and name in LIMITS:
        chat.limits[name] = number(word, f"/set {name}")
    elif word:
        new = value(name, word, f"/set {name}")
        chat.sampling = dataclasses.replace(chat.sampling, **{FIELDS[name].name: new})
    values = {n: getattr(chat.sampling, FIELDS[n].name) for n in SINGLE} | chat.limits
    wanted = [name] if argument else list(values)
    return Outcome("  ".join(f"{n} {values[n] if values[n] is not None else 'none'}" for n in wanted))


def _settings(chat: Chat, begun: str) -> Sequence[str]:
    """Names for /set; behind one, the values it has now, by default and in the presets."""
    name, space, _ = begun.partition(" ")
    if not space or name not in SETTABLE:
        return SETTABLE
    if name in LIMITS:
        values = [chat.limits[name], *(n for n in (128, 512, 1024, 2048) if n != chat.limits[name])]
    else:
        field = FIELDS[name].name
        known = [chat.sampling, Sampling(), *map(Sampling.preset, PRESETS)]
        values = list(dict.fromkeys(getattr(one, field) for one in known))
    return [f"{name} {'none' if value is None else value}" for value in values]


def _tokens(chat: Chat, argument: str) -> Outcome:
    turns = chat.conversation.turns
    last = f"; the last one {len(turns[-1].tokens):,}" if turns else ""
    return Outcome(f"{how_long(chat.conversation)}{last}")


def _stats(chat: Chat, argument: str) -> Outcome:
    model, told = chat.model, chat.conversation
    peak = pages.peak()
    rows = [
        (
            "model",
            f"RWKV-{model.config.version}, {model.format}, {size(model.weight_bytes)} read for a token",
        ),
        ("length", how_long(told)),
        *_answered(chat),
        ("state", f"{size(chat.state_bytes)}, whatever the length; {len(told.kept())} in memory"),
        ("memory", f"{size(peak)} at most so far" if peak else "unknown"),
    ]
    if chat.store is not None:
        rows.append(
            ("on disk", f"{size(chat.store.state_bytes(told.turns))} of states in {chat.store.folder}")
        )
    return Outcome("\n".join(f"{name:<9}{value}" for name, value in rows))


def _answered(chat: Chat) -> list[tuple[str, str]]:
    """What the last answer took; nothing before the first."""
    used = chat.usage
    if used is None:
        return [("speed", "no answer in this run yet")]
    known = f" ({used.cached_tokens:,} of them cached)" if used.cached_tokens else ""
    written = used.seconds - used.prompt_seconds
    rows = [
        (
            "read",
            f"{used.prompt_tokens:,} tokens{known} in {used.prompt_seconds:.2f} s, {used.prompt_rate:,.0f} tokens/s",
        ),
        ("written", f"{used.tokens:,} tokens in {written:.2f} s, {used.rate:,.0f} tokens/s"),
    ]
    if used.drafted:
        rows.append(("drafts", f"{used.accepted:,} of {used.drafted:,} tokens accepted"))
    return rows


def _names(chat: Chat, begun: str) -> list[str]:
    return [info.name for info in chat.store.infos()] if chat.store else []


#: other names of commands
ALIASES = {"clear": "new", "reset": "new", "exit": "quit", "bye": "quit", "?": "help"}

COMMANDS = {
    command.name: command
    for command in (
        Command("help", "", "this list; also /?", _help),
        Command("new", "", "begin a new conversation; also /clear, /reset", keeping.new),
        Command("undo", "[N]", "take back the last N turns (1)", _undo),
        Command("retry", "", "answer the last question again", _retry),
        Command("edit", "[TEXT]", "change the last question and have it answered", _edit),
        Command(
            "system",
            "[TEXT]",
            "how the model is to be, from the next message on; none takes it back",
            _system,
        ),
        Command(
            "think",
            "[MODE]",
            "off, fast, on or long; show unfolds the last thought",
            _think,
            lambda chat, begun: [*chat.template.thinks, "show"],
        ),
        Command("preset", "[NAME]", "sampling by name", _preset, lambda chat, begun: list(PRESETS)),
        Command(
            "set",
            "[NAME VALUE]",
            "one number of the sampling, max_tokens or max_thoughts",
            _set,
            _settings,
        ),
        Command("save", "NAME", "bookmark: keep a copy of this point and stay here", keeping.save),
        Command("load", "NAME", "go on from a bookmark, in a copy of it", keeping.load, _names),
        Command("fork", "NAME", "go on in a copy called NAME; this one stays as it is", keeping.fork),
        Command("switch", "NAME", "go on with the kept conversation NAME itself", keeping.switch, _names),
        Command("sessions", "", "the kept conversations; * is this one", keeping.sessions),
        Command("tokens", "", "how long the conversation is", _tokens),
        Command(
            "export", "[FILE]", "write the conversation as Markdown, or as JSON to a .json", keeping.export
        ),
        Command(
            "copy",
            "[code]",
            "the last answer, or its first code, into the clipboard",
            _copy,
            lambda chat, begun: ["code"],
        ),
        Command(
            "model",
            "[NAME]",
            "go on with another model, which reads all of it again",
            _model,
            lambda chat, begun: model_names(begun),
        ),
        Command("stats", "", "speed of the last answer, and sizes", _stats),
        Command(
            "quit",
            "",
            "leave; also /exit, /bye, exit, quit, ctrl-D",
            lambda chat, argument: Outcome(leave=True),
        ),
    )
}
