"""A talk without a terminal: a line in, an answer out, and nothing else."""

import sys
from collections.abc import Iterator

from rwkv_engine_cli.talk.running import Talk

from rwkv_engine.chat.answer import Part


class Plain:
    """Lines from standard input, answers to standard output. Commands only if a person types them; thoughts are not shown."""

    __slots__ = ("commands",)

    def __init__(self) -> None:
        self.commands = sys.stdin.isatty()

    def read(self, talk: Talk, before: str) -> str | None:
        """The next line that is not blank."""
        while True:
            try:
                line = input("> " if self.commands else "")
            except EOFError:
                if self.commands:
                    print()
                return None
            except KeyboardInterrupt:
                if not self.commands:
                    raise
                print("  (ctrl-D leaves)")
                continue
            if line.strip():
                return line

    def show(self, text: str) -> None:
        """Show lines that no model wrote."""
        print(text, flush=True)

    def stream(self, talk: Talk, parts: Iterator[Part]) -> None:
        """Show an answer as it comes."""
        for part in parts:
            if part.kind == "answer" and part.text:
                print(part.text, end="", flush=True)
        print(flush=True)
