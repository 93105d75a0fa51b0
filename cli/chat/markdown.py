"""An answer on a terminal: Markdown as it comes, thoughts dim and folded when they are finished.

Blocks that are finished are printed and never touched again; only the block under way, cut to the height of
the screen, is drawn anew. So nothing flickers, and the terminal's own scrolling holds the whole conversation.
"""

import time
from collections.abc import Callable, Iterator

from markdown_it import MarkdownIt
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.markdown import Markdown
from rich.segment import Segment
from rich.text import Text
from rwkv_engine_cli.output import Visible, visible

from rwkv_engine.chat.answer import Part

#: seconds between two drawings; lines of a thought that are seen at once
PAUSE, THOUGHT_LINES = 0.05, 6
FOLDED = "thought for {seconds:.1f} s, {count} tokens (ctrl-O or /think show unfolds it)"


def formatted(text: str) -> Markdown:
    """Text as Markdown in which a line end is a line end, because models write lists and verses that way."""
    shown = Markdown(text, code_theme="ansi_dark")
    for token in shown.parsed:
        for child in token.children or ():
            if child.type == "softbreak":
                child.type = "hardbreak"
    return shown


def finished(text: str) -> int:
    """How many characters of a Markdown text are in blocks that nothing that follows can change."""
    blocks = [
        token.map for token in MarkdownIt().enable("table").parse(text) if token.level == 0 and token.map
    ]
    if len(blocks) < 2 or blocks[-1][0] == 0:
        return 0
    return sum(len(line) for line in text.splitlines(keepends=True)[: blocks[-1][0]])


class _End:
    """The last lines of something, as many as the screen has room for."""

    __slots__ = ("_inner", "_lines")

    def __init__(self, inner: RenderableType, lines: int) -> None:
        self._inner, self._lines = inner, lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self._inner, options.update(height=None), pad=False)
        for line in lines[-max(1, min(self._lines, options.max_height - 3)) :]:
            yield from line
            yield Segment.line()


class Answer:
    """One answer being shown. `show` takes its parts.

    status  a line for the bottom of the screen, asked for at each drawing.
    """

    __slots__ = (
        "_begun",
        "_console",
        "_count",
        "_drawn",
        "_live",
        "_reading",
        "_status",
        "_text",
        "_thought",
        "_visible",
    )

    def __init__(self, console: Console, status: Callable[[], str]) -> None:
        self._console, self._status = console, status
        self._text = self._thought = ""
        self._visible = {"thinking": Visible(), "answer": Visible()}
        self._begun = self._drawn = 0.0
        self._count = 0
        self._reading = ""
        self._live = Live(console=console, auto_refresh=False, transient=True, vertical_overflow="crop")

    def show(self, parts: Iterator[Part]) -> None:
        """Show all parts; returns when the answer is over."""
        with self._live:
            for part in parts:
                self._take(part)
                if time.perf_counter() - self._drawn >= PAUSE:
                    self._draw()
            self._fold()
            self._print(len(self._text))
            self._live.update(Text(""), refresh=True)

    def _take(self, part: Part) -> None:
        if part.kind == "reading":
            self._reading = f"reading {part.done:,} of {part.total:,} tokens"
        elif part.kind == "thinking":
            self._begun = self._begun or time.perf_counter()
            self._thought += self._visible["thinking"](part.text)
            self._count += 1
        elif part.text:
            self._fold()
            self._text += self._visible["answer"](part.text)
            if "\n" in part.text:
                self._print(finished(self._text))

    def _fold(self) -> None:
        """A thought that is over becomes one line."""
        if self._begun:
            line = FOLDED.format(seconds=time.perf_counter() - self._begun, count=self._count)
            self._console.print(Text(line, style="dim italic"))
            self._begun = 0.0

    def _print(self, count: int) -> None:
        """Print so much of the text for good."""
        block, self._text = self._text[:count], self._text[count:]
        if block.strip():
            self._console.print(formatted(block))
            self._console.print()

    def _draw(self) -> None:
        self._drawn = time.perf_counter()
        status = Text(visible(self._status()), style="dim", no_wrap=True, overflow="ellipsis")
        if self._begun:
            body: RenderableType = _End(Text(self._thought, style="dim italic"), THOUGHT_LINES)
        elif self._text:
            body = _End(formatted(self._text), self._console.height)
        else:
            body = Text(self._reading, style="dim")
        self._live.update(Group(body, status), refresh=True)
