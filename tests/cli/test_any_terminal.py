"""One conversation in many terminals: narrow and wide, without escape sequences, without colours, with other
encodings, and with none at all. It says the same everywhere.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from terminal import Terminal

GOLDEN = Path(__file__).parents[1] / "golden" / "terminals.txt"
#: what every answer is, so that it does not depend on weights; few encodings have all of it
ANSWER = """\
Größe – 日本, and a paragraph that is longer than the narrow ones of these terminals are wide.

* one item
* another item, which is also longer than a narrow terminal is wide

```python
print("Tom has the ball, and this line is longer than a narrow terminal is wide.")
```

Bye."""
#: the command with that answer, which comes slowly where the question asks for it; "briefly" has no form
PROGRAM = f"""
import time
from rwkv_engine import Constraint
from rwkv_engine.chat.conversation import Conversation
def formed(answer):
    def made(self, *given, **named):
        if "briefly" not in str(given[0]):
            named["constraint"] = Constraint.choice([{ANSWER!a}])
        for part in answer(self, *given, **named):
            time.sleep(0.1 * ("slowly" in str(given[0]) and part.kind == "answer"))
            yield part
    return made
for name in ("say", "retry", "edit"):
    setattr(Conversation, name, formed(getattr(Conversation, name)))
from rwkv_engine_cli.app import main
main()
"""
OPTIONS = ("--temperature", "0", "--draft", "none")
ONCE = ("chat", "Who has the ball?", *OPTIONS, "-v")
GENERATE = ("generate", "Once upon a time", *OPTIONS, "--max-tokens", "5", "-v")
KINDS = {
    "plain": {},
    "dumb": {"TERM": "dumb"},
    "no-color": {"NO_COLOR": "1"},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
}
SCRIPT = """\
Who has the ball?
/stats
/set
/set top_p 0.5
/set nothing 1
/undoo
/sessions
/retry
/new
/set max_tokens 2
Where is Mia, briefly?
/set max_tokens 512
/edit Where is Ben?
/undo
/help
""".splitlines()
COLOUR = re.compile(rb"\x1b\[(?:\d*;)*(?:3[0-8]|4[0-8]|9\d|10[0-7])(?:;\d*)*m")
#: what differs from one terminal to another: blanks, Markdown, characters; and numbers
VARIES = re.compile(r"[^!-~]|[?*`N\d.,:-]|python")
#: behind these words stands a path, or what a model wrote freely
FREE = re.compile(r"(statesin|briefly).*?(?=>/set|theanswer)")


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """opened(arguments, columns, kind): the command on a screen on which a line that is too long is seen."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    terminals = []

    def start(arguments, columns, kind):
        terminals.append(Terminal(arguments, columns, program=("-c", PROGRAM), drawn=400, **KINDS[kind]))
        return terminals[-1]

    yield start
    for each in terminals:
        each.close()


def say(chat, line):
    """Type a line, wait for the next prompt; all lines since."""
    count = chat.prompts()
    chat.program.send(f"{line}\r")
    chat.wait(lambda: chat.prompts() > count)
    chat.ready()
    return chat.text()


def bare(text):
    """The words of a text, without what differs from one terminal, run or machine to another."""
    return FREE.sub(r"\1", VARIES.sub("", text))


def left(terminal):
    """The exit status of a program that ends now."""
    terminal.wait(lambda: False)
    terminal.program.wait()
    return terminal.program.exitstatus


def check(terminal, columns, kind):
    """What holds in every terminal, whatever is said in it."""
    assert "Traceback" not in terminal.text()
    assert kind != "dumb" or b"\x1b" not in terminal.raw
    assert kind != "no-color" or not COLOUR.search(terminal.raw)
    written = [bare(line) for line in ANSWER.splitlines()]
    for line in terminal.text().splitlines():
        own = line.startswith((">", "Once upon")) or bare(line) in written  # typed, or a model's
        assert own or len(line) <= columns or " " not in line.strip(), line


@pytest.mark.slow_but("20-dumb", "80-plain")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("columns", [20, 80, 200])
def test_a_conversation_says_the_same_in_every_terminal(opened, columns, kind):
    chat = opened(["chat", *OPTIONS], columns, kind)
    chat.ready()
    for line in SCRIPT:
        say(chat, line)
    seen = chat.text().rpartition("\n>")[0]  # without the status line
    chat.program.send("Count slowly.\r")
    chat.wait(lambda: "Gr" in chat.text().partition("slowly")[2])
    chat.program.send("\x03")
    chat.ready()
    assert "in 1 turn" in say(chat, "/tokens").rpartition("/tokens")[2].replace("\n", " ")
    chat.program.send("exit\r")
    assert left(chat) == 0
    check(chat, columns, kind)
    if os.environ.get("RWKV_ENGINE_GOLDEN") and (columns, kind) == (200, "plain"):
        GOLDEN.write_text(re.sub(r"\d[\d.,:-]*|(?<=states in ).*", "N", seen) + "\n")
    assert bare(seen) == bare(GOLDEN.read_text())


@pytest.mark.slow_but("20-dumb")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("columns", [20, 80])
def test_one_question_and_a_text_are_answered_in_every_terminal(opened, columns, kind):
    for arguments, told in ((ONCE, ANSWER), (GENERATE, "Once upon a time")):
        once = opened(arguments, columns, kind)
        assert left(once) == 0
        check(once, columns, kind)
        shown = bare(once.text())
        assert shown.startswith(bare(told)) and "peakmemory" in shown and "tokens/s;firsttokenafter" in shown


@pytest.mark.slow_but("C")
@pytest.mark.parametrize("environment", KINDS.values(), ids=KINDS)
def test_where_there_is_no_terminal_only_text_comes_out(tmp_path, environment):
    """Lines in, answers out: no prompt, no escape sequence, nothing on standard error."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "chat", "--lines", *OPTIONS],
        input=b"Who has the ball?\n/help\nexit\n",
        capture_output=True,
        env={**os.environ, "XDG_DATA_HOME": str(tmp_path), **environment},
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode(environment.get("PYTHONIOENCODING", "utf-8"))
    assert bare(text) == bare(ANSWER) * 3 and "\x1b" not in text
