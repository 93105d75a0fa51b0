"""The options of `Sampling`, made from its fields.

Each field with a help text is an option of generate and chat, and a name for /set.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, fields, replace
from typing import Annotated, Any

import typer

from rwkv_engine.errors import OptionError
from rwkv_engine.writing.sampling import PRESETS, Sampling


@dataclass(frozen=True, slots=True)
class _Kind:
    """How values of one type are written.

    read    a word -> a value; raises ValueError.
    wanted  for errors.
    shown   for help.
    many    whether there can be several.
    """

    read: Callable[[str], Any]
    wanted: str
    shown: str
    many: bool = False


def _pair(text: str) -> tuple[int, float]:
    token, number = text.split("=", 1)
    return int(token), float(number)


_WHOLE = _Kind(int, "a whole number", "INTEGER")
_KINDS: Mapping[Any, _Kind] = {
    float: _Kind(float, "a number", "NUMBER"),
    int: _WHOLE,
    int | None: _WHOLE,
    tuple[int, ...]: _Kind(int, "the number of a token", "ID", many=True),
    tuple[tuple[int, float], ...]: _Kind(_pair, "ID=NUMBER such as 261=-2.5", "ID=NUMBER", many=True),
}
#: the fields that are options, by the option's name
FIELDS: "Mapping[str, Field[Any]]" = {
    field.metadata.get("option", field.name): field for field in fields(Sampling) if "help" in field.metadata
}


def _kind(name: str) -> _Kind:
    return _KINDS[FIELDS[name].type]


#: those of one value each, which /set changes
SINGLE = tuple(name for name in FIELDS if not _kind(name).many)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The sampling options of a command line.

    preset  its name, if one was given.
    values  by names of fields; only those that were given.
    """

    preset: str | None
    values: Mapping[str, Any]

    def over(self, kept: Sampling | None = None) -> Sampling:
        """The preset, or else `kept`, with the given values. Raises OptionError."""
        base = Sampling.preset(self.preset) if self.preset is not None else kept or Sampling()
        return replace(base, **self.values)


NOTHING = Chosen(None, {})


def restored(kept: Mapping[str, Any] | None) -> Sampling | None:
    """The sampling that was saved with a conversation, from JSON; None if there was none."""
    if kept is None:
        return None
    values = {field.name: kept[field.name] for field in FIELDS.values() if field.name in kept}
    for name, field in FIELDS.items():
        if _kind(name).many and field.name in values:
            values[field.name] = tuple(tuple(v) if isinstance(v, list) else v for v in values[field.name])
    return Sampling(**values)


def value(name: str, text: str, shown: str) -> Any:
    """The value of a word for the option `name`.

    Raises OptionError; `shown` is the option's name in messages.
    """
    if text == "none" and FIELDS[name].default is None:
        return None
    try:
        return _kind(name).read(text)
    except ValueError:
        raise OptionError.of(shown, text, _kind(name).wanted) from None


def with_sampling(verb: Callable[..., None]) -> Callable[..., None]:
    """Replace a verb's parameter `sampling` by the options of Sampling; it then gets a `Chosen`."""

    @functools.wraps(verb)
    def command(*, preset: str | None, **given: Any) -> None:
        values: dict[str, Any] = {}
        for name, field in FIELDS.items():
            said = given.pop(_parameter(name))
            if said is not None and said != []:
                read = [
                    value(name, word, _flag(name)) for word in ([said] if isinstance(said, str) else said)
                ]
                values[field.name] = tuple(read) if _kind(name).many else read[0]
        chosen = Chosen(preset, values)
        chosen.over()  # a mistake is told before a model is loaded
        verb(sampling=chosen, **given)

    signature = inspect.signature(verb)
    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        parameters += _options() if parameter.name == "sampling" else [parameter]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _options() -> list[inspect.Parameter]:
    """--preset, and an option for each field.

    All take words, so that all mistakes get the same kind of message.
    """
    help = f"Sampling to start from: {', '.join(PRESETS)}. The options below change it."
    made: list[tuple[str, Any]] = [("preset", Annotated[str | None, typer.Option("--preset", help=help)])]
    for name, field in FIELDS.items():
        default = "" if field.default in (None, ()) else f"  [default: {field.default}]"
        help = field.metadata["help"] + default
        option = typer.Option(_flag(name), help=help, metavar=_kind(name).shown)
        made.append(
            (_parameter(name), Annotated[list[str] | None if _kind(name).many else str | None, option])
        )
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return [inspect.Parameter(name, kind, default=None, annotation=hint) for name, hint in made]


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _parameter(name: str) -> str:
    return f"sampling_{name}"
