"""Jinja templates, as `tokenizer_config.json` has them under "chat_template", in a sandbox.

Such a template renders a whole list of messages. A conversation continues from a state and needs only the
new text. So the answer before is given to the template as a mark, and what follows the mark is the new text.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rwkv_engine.errors import CheckpointError, EngineError, OptionError, brief
from rwkv_engine.system.extras import missing
from rwkv_engine.text.chat import Message, Think
from rwkv_engine.text.companions import read_text
from rwkv_engine.text.markers import unused

_STOPS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|im_start|>", "\n\nUser:", "\n\nSystem:", "</s>")


class JinjaTemplate:
    """A Jinja template as a `Template`.

    source    its text.
    name      for people.
    bos, eos  what it sees as bos_token and eos_token.
    It also sees messages (role, content), add_generation_prompt, enable_thinking, tools, raise_exception and
    strftime_now. Raises OptionError for a template that fails, now or when it is used; MissingExtra without
    jinja2.
    """

    __slots__ = ("_bos", "_eos", "_template", "name", "stops", "thinks")

    def __init__(self, source: str, name: str = "jinja", bos: str = "", eos: str = "") -> None:
        try:
            from rwkv_engine.text.jinja_sandbox import Sandbox
        except ImportError:
            raise missing("a Jinja template", "template", "jinja2") from None
        with _refusing(name):
            self._template = Sandbox().from_string(source)
        self.name, self._bos, self._eos = name, bos, eos
        self.thinks: tuple[Think, ...] = ("off",)
        self.stops = tuple(
            dict.fromkeys(
                (*((eos,) if eos else ()), *(stop for stop in _STOPS if stop.strip("\n") in source))
            )
        )
        between = self._between()
        if between and not any(stop in between for stop in self.stops):
            self.stops += (between,)
        self.thinks = ("off", "on") if "enable_thinking" in source else ("off",)

    @classmethod
    def of_file(cls, path: str | Path) -> "JinjaTemplate":
        """The template in a file. Raises OptionError if it cannot be read."""
        try:
            return cls(read_text(Path(path), "template"), Path(path).name)
        except CheckpointError as error:
            raise OptionError(f"template {error}") from None

    def render(
        self,
        messages: Sequence[Message],
        think: Think = "off",
        tools: Sequence[Mapping[str, Any]] = (),
        call: bool = False,
        open: bool = True,
    ) -> str:
        """The whole conversation; with `open`, up to where the next answer begins.

        `call` changes nothing: such templates do not say how a tool call begins.
        """
        from rwkv_engine.text.jinja_sandbox import rendered

        if think not in self.thinks:
            raise OptionError.of(
                "think", think, f"what the template {self.name} has: {', '.join(self.thinks)}"
            )
        with _refusing(self.name):
            return rendered(
                self._template,
                messages=[{"role": message.role, "content": message.text} for message in messages],
                add_generation_prompt=open,
                enable_thinking=think == "on",
                tools=list(tools) or None,
                bos_token=self._bos,
                eos_token=self._eos,
            )

    def asks(self, text: str, think: Think, system: str | None, first: bool) -> str:
        """See `Template`."""
        mark = next(unused(text, system or ""))
        messages = [*_before(mark, first), *_told(system), Message("user", text)]
        return self._after(self.render(messages, think), mark, first)

    def keeps(self, text: str, answer: str, system: str | None, first: bool) -> str:
        """See `Template`."""
        mark, said = itertools.islice(unused(text, system or ""), 2)
        messages = [*_before(mark, first), *_told(system), Message("user", text), Message("assistant", said)]
        before, written, _ = self._after(self.render(messages, open=False), mark, first).partition(said)
        if not written:
            raise OptionError(f"template {self.name}: it does not write down what the assistant said")
        return before + answer.strip()

    def _between(self) -> str:
        """What stands between an answer and the next question; nothing where the template does not say."""
        said, asked = itertools.islice(unused(), 2)
        messages = [Message("user", "-"), Message("assistant", said), Message("user", asked)]
        try:
            return self.render(messages).partition(said)[2].partition(asked)[0].rstrip()
        except OptionError:  # raised again where the template is used
            return ""

    def _after(self, text: str, mark: str, first: bool) -> str:
        """The rendered text behind the mark that stands for the previous answer."""
        _, written, after = text.partition(mark)
        if not first and not written:
            raise OptionError(f"template {self.name}: it does not write down what the assistant said")
        return text if first else after


@contextmanager
def _refusing(name: str) -> Iterator[None]:
    """Turns every error of a template, in compiling or rendering, into one sentence."""
    try:
        yield
    except EngineError:
        raise
    except Exception as error:  # what is raised is the template's choice as much as jinja2's
        line = getattr(error, "lineno", None)
        where = f"line {line}: " if isinstance(line, int) else ""
        raise OptionError(f"template {brief(name, 100)}: {where}{brief(error, 300)}") from None


def _before(mark: str, first: bool) -> list[Message]:
    """The previous turn, with the answer `mark`; nothing before the first turn."""
    return [] if first else [Message("user", "-"), Message("assistant", mark)]


def _told(system: str | None) -> list[Message]:
    return [Message("system", system)] if system and system.strip() else []
