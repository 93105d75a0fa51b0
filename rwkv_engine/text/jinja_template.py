"""Templates in Jinja, as `tokenizer_config.json` files have them under "chat_template", in a sandbox.

Such a template writes down a whole list of messages. A conversation here goes on from a state and needs only what is new, so an
answer is given to the template as a mark, and what the template writes behind the mark is what comes next.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rwkv_engine.errors import MissingExtra, OptionError
from rwkv_engine.text.chat import Message, Think

#: stands for an answer; a private character, so that nobody says it
_MARK = "\ue0f0"
_STOPS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|im_start|>", "\n\nUser:", "\n\nSystem:", "</s>")


class JinjaTemplate:
    """A Jinja template as a `Template`.

    source  its text.    name  for people.    bos, eos  what it sees as bos_token and eos_token.
    It sees messages (role, content), add_generation_prompt, enable_thinking, tools, bos_token, eos_token, raise_exception and
    strftime_now. Raises OptionError, at once or when it is used, for one that fails; MissingExtra without jinja2.
    """

    __slots__ = ("_bos", "_eos", "_template", "name", "stops", "thinks")

    def __init__(self, source: str, name: str = "jinja", bos: str = "", eos: str = "") -> None:
        try:
            import jinja2
            from jinja2.sandbox import ImmutableSandboxedEnvironment
        except ImportError:
            raise MissingExtra(
                "a Jinja template needs the package jinja2: pip install 'rwkv-engine[template]'"
            ) from None
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals.update(raise_exception=_raise, strftime_now=_now)
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise OptionError(f"template {name}: line {getattr(error, 'lineno', '?')}: {error}") from None
        self.name, self._bos, self._eos = name, bos, eos
        self.stops = tuple(
            dict.fromkeys(
                (*((eos,) if eos else ()), *(stop for stop in _STOPS if stop.strip("\n") in source))
            )
        )
        self.thinks: tuple[Think, ...] = ("off", "on") if "enable_thinking" in source else ("off",)

    @classmethod
    def of_file(cls, path: str | Path) -> "JinjaTemplate":
        """The template in a file. Raises OptionError where it cannot be read."""
        try:
            return cls(Path(path).read_text(encoding="utf-8"), Path(path).name)
        except OSError as error:
            raise OptionError(f"template {path}: {error.strerror or error}") from None
        except UnicodeDecodeError as error:
            raise OptionError(f"template {path}: not UTF-8 text (byte {error.start})") from None

    def render(
        self,
        messages: Sequence[Message],
        think: Think = "off",
        tools: Sequence[Mapping[str, Any]] = (),
        open: bool = True,
    ) -> str:
        """The whole talk; with `open`, up to where the next answer begins."""
        import jinja2

        if think not in self.thinks:
            raise OptionError.of(
                "think", think, f"what the template {self.name} has: {', '.join(self.thinks)}"
            )
        try:
            return self._template.render(
                messages=[{"role": message.role, "content": message.text} for message in messages],
                add_generation_prompt=open,
                enable_thinking=think == "on",
                tools=list(tools) or None,
                bos_token=self._bos,
                eos_token=self._eos,
            )
        except (
            jinja2.TemplateError,
            TypeError,
            ValueError,
            KeyError,
            AttributeError,
            ArithmeticError,
            RecursionError,
        ) as error:
            raise OptionError(f"template {self.name}: {error}") from None

    def asks(self, text: str, think: Think, system: str | None, first: bool) -> str:
        """See `Template`."""
        messages = [*self._before(first), *_told(system), Message("user", text)]
        return self._after(self.render(messages, think), first)

    def keeps(self, text: str, answer: str, system: str | None, first: bool) -> str:
        """See `Template`."""
        messages = [*self._before(first), *_told(system), Message("user", text), Message("assistant", _MARK)]
        whole = self._after(self.render(messages, open=False), first)
        if _MARK not in whole:
            raise OptionError(f"template {self.name}: it does not write down what the assistant said")
        return whole.partition(_MARK)[0] + answer.strip()

    def _before(self, first: bool) -> list[Message]:
        return [] if first else [Message("user", "-"), Message("assistant", _MARK)]

    def _after(self, text: str, first: bool) -> str:
        if first:
            return text
        before, mark, after = text.partition(_MARK)
        if not mark:
            raise OptionError(f"template {self.name}: it does not write down what the assistant said")
        return after


def _told(system: str | None) -> list[Message]:
    return [Message("system", system)] if system and system.strip() else []


def _raise(message: str) -> None:
    raise ValueError(message)


def _now(form: str) -> str:
    import datetime

    return datetime.datetime.now().strftime(form)
