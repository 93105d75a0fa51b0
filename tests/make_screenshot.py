"""Draw docs/chat.svg: a short conversation with the embedded model on a real terminal, as it looks.

python tests/make_screenshot.py docs/chat.svg
"""

import itertools
import os
import re
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.style import Style
from rich.text import Text
from terminal import Terminal

COLUMNS, ROWS = 88, 28
TYPED = (
    "Tom has the ball. Mia is in the park. Who has the ball?",
    "Where is Mia?",
    "/fork another-way",
    "There is a red hat. What colour is the hat?",
    "/undo",
    "/switch tom-has-the-ball",
    "/sessions",
    "/s",
)
#: pyte's names that are not rich's
_COLORS = {"default": None, "brown": "yellow", "brightblack": "bright_black"}


def drawn(screen):
    """The screen as rich text."""
    whole = Text()
    for y in range(ROWS):
        for style, cells in itertools.groupby((screen.buffer[y][x] for x in range(COLUMNS)), _style):
            whole.append("".join(cell.data for cell in cells), style)
        whole.append("\n")
    whole.rstrip()
    return whole


def _style(cell):
    color = _COLORS.get(cell.fg, cell.fg)
    color = f"#{color}" if color and re.fullmatch("[0-9a-f]{6}", color) else color
    return Style(color=color, bold=cell.bold, italic=cell.italics, reverse=cell.reverse)


def main(path):
    """Hold the conversation and write the picture."""
    with tempfile.TemporaryDirectory() as folder:
        chat = Terminal(["chat", "--temperature", "0"], COLUMNS, ROWS, XDG_DATA_HOME=folder)
        chat.ready()
        for line in TYPED[:-1]:
            chat.say(line)
        chat.type(TYPED[-1])
        chat.wait(lambda: "one number of" in chat.text())
        picture = drawn(chat.screen)
        chat.close()
    with open(os.devnull, "w") as nowhere:
        console = Console(
            width=COLUMNS, record=True, file=nowhere, force_terminal=True, color_system="truecolor"
        )
        console.print(picture)
    # without the fonts that the picture would have a browser load
    Path(path).write_text(
        re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title="rwkv chat"), flags=re.DOTALL)
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
