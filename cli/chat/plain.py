"""A conversation without a terminal: a line in, an answer out, and nothing else."""

import sys
from collections.abc import Iterator

from rwkv_engine_cli.chat.running import Chat
from rwkv_engine_cli.output import Stream, echo, tell

from rwkv_engine.chat.answer import Part
from rwkv_engine.errors import OptionError


class Plain:
    """Lines from standard input, answers to standard output.

    Commands only if a person types them; thoughts are not shown.
    """

    __slots__ = ("commands",)

    def __init__(self, lines: bool = False) -> None:
        self.commands = not lines and sys.stdin.isatty()

    def read(self, chat: Chat, before: str) -> str | None:
        """The next line that is not blank. What is to be changed is shown above it."""
        if before:
            tell(before)
        while True:
            try:
                line = input(("edit> " if before else "> ") if self.commands else "")
            except EOFError:
                if self.commands:
                    echo()
                return None
            except KeyboardInterrupt:
                if not self.commands:
                    raise
                echo("  (not changed)" if before else "  (ctrl-D leaves)")
                if before:
                    return ""
                continue
            except UnicodeDecodeError as error:
                raise OptionError(
                    f"standard input: not {error.encoding} text (byte {error.start}); convert it first"
                ) from None
            if line.strip():
                return line

    def show(self, text: str) -> None:
        """Show lines that no model wrote."""
        tell(text)

    def copy(self, text: str) -> None:
        """There is no terminal that could take it. Raises OptionError."""
        raise OptionError("/copy: there is no terminal with a clipboard; /export writes a file")

    def wait(self, chat: Chat) -> None:
        """Wait until the model's programs are ready; standard error tells how far that is."""
        chat.preparation.wait()

    def stream(self, chat: Chat, parts: Iterator[Part]) -> None:
        """Show an answer as it comes."""
        out = Stream()
        for part in parts:
            if part.kind == "answer" and part.text:
                out.write(part.text)
        echo()
