"""A conversation on a terminal: a line editor with history and completion, and answers as Markdown."""

import base64
from collections.abc import Iterator
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.styles import Style
from rich.console import Console
from rich.live import Live
from rich.text import Text
from rwkv_engine_cli.chat.commands import COMMANDS
from rwkv_engine_cli.chat.markdown import Answer
from rwkv_engine_cli.chat.running import Chat
from rwkv_engine_cli.chat.signals import terminal_put_back
from rwkv_engine_cli.output import to_clipboard, visible
from rwkv_engine_cli.progress import counting

from rwkv_engine.chat.answer import Part
from rwkv_engine.errors import OptionError
from rwkv_engine.system.folders import private_file

#: characters of base64 that terminals take at least
LONGEST_COPY = 74_994
#: seconds between two looks at whether the model is ready
PAUSE = 0.2
_STYLE = Style.from_dict({"bottom-toolbar": "noreverse fg:ansibrightblack", "prompt": "bold"})


class Terminal:
    """The person's screen.

    editing  whether the last question is being changed.
    history  file of what was typed in all conversations; None: only in memory.
    """

    __slots__ = ("_busy", "_console", "_prompt", "_chat", "commands", "editing")

    def __init__(self, history: Path | None) -> None:
        self.commands, self.editing = True, False
        self._console = Console(highlight=False)
        self._chat: Chat | None = None
        self._busy = ""
        self._prompt: PromptSession[str] = PromptSession(
            lambda: [("class:prompt", "edit> " if self.editing else "> ")],
            history=_history(history),
            completer=_Completer(self),
            complete_while_typing=True,
            key_bindings=_keys(self),
            bottom_toolbar=lambda: self._busy or (self._chat.status() if self._chat else ""),
            prompt_continuation="  ",
            style=_STYLE,
            reserve_space_for_menu=6,
            enable_suspend=True,
        )

    @property
    def chat(self) -> Chat | None:
        """The conversation that the line under way belongs to."""
        return self._chat

    def compiling(self, functions: int, seconds: float, done: bool) -> None:
        """`watch_compiling`'s `tell`: the line below the prompt counts."""
        self._busy = "" if done else counting(functions, seconds)
        self._prompt.app.invalidate()

    def copy(self, text: str) -> None:
        """Send a text to the terminal for the clipboard (OSC 52).

        Raises OptionError where the text is longer than terminals take.
        """
        data = base64.b64encode(text.encode())
        if len(data) > LONGEST_COPY:
            raise OptionError(
                f"/copy: the text has {len(text):,} characters, more than terminals take; /export writes a file"
            )
        to_clipboard(data.decode())

    def wait(self, chat: Chat) -> None:
        """Wait until the model's programs are ready; a line counts."""
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            while not chat.preparation.wait(PAUSE):
                live.update(Text(self._busy, style="dim", no_wrap=True, overflow="ellipsis"), refresh=True)

    def read(self, chat: Chat, before: str) -> str | None:
        """What the person says; the model's programs are made ready meanwhile.

        Ctrl-C empties the line, or leaves the last question unchanged; ctrl-D on an empty line leaves.
        """
        self._chat, self.editing = chat, bool(before)
        chat.preparation.start()
        while True:
            try:
                with terminal_put_back(again=b"\x1b[?2004h"):
                    return self._prompt.prompt(default=before)
            except EOFError:
                return None
            except KeyboardInterrupt:
                if self.editing:
                    self.show("(not changed)")
                    return ""
                self.show("(ctrl-D leaves)")

    def show(self, text: str) -> None:
        """Show lines that no model wrote."""
        self._console.print(Text(visible(text), style="cyan"))

    def stream(self, chat: Chat, parts: Iterator[Part]) -> None:
        """Show an answer as it comes."""
        with terminal_put_back(again=b"\x1b[?25l"):
            Answer(self._console, chat.status).show(parts)

    def unfold(self) -> None:
        """Show the thought behind the last answer that had one."""
        turns = self._chat.conversation.turns if self._chat else []
        thought = next(
            (turn.thinking for turn in reversed(turns) if turn.thinking),
            "no answer of this conversation has a thought",
        )
        self._console.print(Text(visible(thought), style="dim italic"))


class _Completer(Completer):
    """Completes commands, and what may follow one."""

    def __init__(self, screen: Terminal) -> None:
        self._screen = screen

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        """prompt_toolkit's interface."""
        line, chat = document.text_before_cursor, self._screen.chat
        if not line.startswith("/") or line.startswith("//") or chat is None:
            return
        word, space, begun = line[1:].partition(" ")
        if not space:
            found = [(name, command.does) for name, command in COMMANDS.items() if name.startswith(word)]
        else:
            choices = COMMANDS[word].choices(chat, begun) if word in COMMANDS else ()
            found = [(choice, "") for choice in choices if choice.startswith(begun)]
        for text, does in found:
            yield Completion(text, start_position=-len(begun if space else word), display_meta=does)


def _keys(screen: Terminal) -> KeyBindings:
    keys = KeyBindings()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.text_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("c-c")
    def _(event: KeyPressEvent) -> None:
        if event.current_buffer.text and not screen.editing:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt)

    @keys.add("c-o")
    def _(event: KeyPressEvent) -> None:
        run_in_terminal(screen.unfold)

    return keys


def _history(path: Path | None) -> History:
    """The history in a file, if it can be written."""
    if path is None:
        return InMemoryHistory()
    try:
        return FileHistory(str(private_file(path)))
    except OSError:
        return InMemoryHistory()
