"""`rwkv chat` on a terminal, driven as a person would."""

import os
import re
import signal
import tempfile
from pathlib import Path

import psutil
import pytest
from rwkv_engine_cli.chat.loop import until_interrupt
from scripted_model import ScriptedModel
from terminal import Terminal

from rwkv_engine import Sampling
from rwkv_engine.chat.conversation import Conversation
from rwkv_engine.text.chat import template_named

GOLDEN = Path(__file__).parents[1] / "golden" / "chat.txt"
#: what is typed, in order; what a model writes is masked, so that other weights show the same
SCRIPT = """\
/help
/tokens
/undo
/retry
Tom has the ball. Who has the ball?
Mia is in the park. Where is Mia?
/tokens
/undo
/retry
/edit Ben has a red cap. Who has a red cap?
/set temperature 0
/set temprature 0
/set
/set max_tokens 12
/set top_p high
/preset
/preset greedy
/preset nothing
/system Answer in one sentence.
/system
Mia is in the park. Where is Mia?
/undo 2
/undo 9
/think
/think long
/think deep
Who has the ball?
/think off
/save here
/save here
/fork other
Where is Tom?
/sessions
/switch here
/switch her
/load other
/sessions
Where is Mia?
/sessions
/stats
/copy
/copy all
/model
/model nowhere
/model embedded
/tokens
/undoo
/umbrella
/new
/tokens
/quit now
//etc is a folder.
"""


@pytest.fixture
def terminal():
    opened = []

    def start(*arguments, **options):
        opened.append(Terminal(["chat", *arguments], **options))
        opened[-1].ready()
        return opened[-1]

    yield start
    for each in opened:
        each.close()


def masked(line, shown):
    """What a line was answered with, without what depends on weights, clock and machine."""
    writes = not line.startswith("/") or line.startswith(("//", "/retry", "/edit"))
    if writes and "nothing has been said" not in shown:
        notes = [
            text
            for text in shown.splitlines()
            if text.startswith(("rwkv: ", "thought for")) and "compiling" not in text
        ]
        return "\n".join([*(re.sub(r"\d[\d.,]*", "N", note) for note in notes), "ANSWER"])
    shown = shown.replace(os.environ["XDG_DATA_HOME"], "DATA")
    # whether anything was drafted depends on how long passes took
    shown = "\n".join(line for line in shown.split("\n") if not line.startswith("drafts "))
    shown = re.sub(r"^model:.*", "model: ANSWER", shown, flags=re.MULTILINE | re.DOTALL)
    shown = re.sub(
        r"(?<![\w-])\d[\d.,:-]*( [kKMG]?B(?!\w)| bytes)?", lambda m: "N" + (" BYTES" if m[1] else ""), shown
    )
    return re.sub(r"(?<=\S)  +", "  ", shown)


@pytest.fixture
def short_folder():
    """A folder whose path fits into a line of a terminal, which pytest's own may not."""
    with tempfile.TemporaryDirectory() as folder:
        yield folder


def test_every_command_does_what_it_did(terminal, short_folder, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", short_folder)
    chat = terminal("--seed", "1")
    seen = "".join(f"> {line}\n{masked(line, chat.say(line))}\n" for line in SCRIPT.splitlines())
    chat.type("/quit")
    chat.program.send("\r")
    chat.wait(lambda: False)
    chat.program.wait()
    assert chat.program.exitstatus == 0
    if os.environ.get("RWKV_ENGINE_GOLDEN"):
        GOLDEN.write_text(seen)
    assert seen == GOLDEN.read_text()


def test_keys_history_completion_and_the_status_line(terminal, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    first = terminal("--temperature", "0", "--think", "on", "--max-tokens", "40")
    first.say("Tom has the ball. Who has the ball?")
    status = r"^tom-has-the-ball · \d+ tokens · state 203 KB · [\d,]+ tokens/s · think on$"
    first.wait(lambda: re.search(status, first.text(), re.MULTILINE))
    folded = first.text().count("thought for")
    first.program.send("\x0f")  # ctrl-O
    first.wait(lambda: first.prompts() >= 2)
    first.ready()
    assert folded == 1
    first.program.send("\x04")  # ctrl-D
    first.wait(lambda: False)
    first.program.wait()
    assert first.program.exitstatus == 0

    chat = terminal("-c")
    chat.wait(lambda: re.search("^tom-has-the-ball · .* · think on$", chat.text(), re.MULTILINE))
    chat.type("\x1b[A", "Tom has the ball. Who has the ball?")  # up: what was typed in the run before
    chat.type("\x03", "")  # ctrl-C empties the line
    chat.program.send("\x03")  # and says on an empty one how to leave
    chat.wait(lambda: "(ctrl-D leaves)" in chat.text())
    chat.ready()
    for typed, shown, completed in (
        ("/und", "take back the last", "/undo"),
        ("/think lo", "    long", "/think long"),
        ("/set max_tokens 20", "max_tokens 2048", "/set max_tokens 2048"),
    ):
        chat.type(typed)
        chat.wait(lambda shown=shown: shown in chat.text())
        chat.type("\t", completed)
        chat.type("\x03", "")
    chat.program.send("Mia is in the park.\x1b\rWhere is Mia?\\\rQuick!")
    chat.wait(lambda: chat.line() == "  Quick!")
    chat.program.send("\r")
    chat.ready()
    assert "> Mia is in the park.\n  Where is Mia?\n  Quick!\n" in chat.text()
    chat.program.send("/edit\r")  # the question comes back to be changed
    chat.wait(lambda: chat.line() == "  Quick!")
    chat.program.send("!\r")
    chat.ready()
    assert "  Quick!!" in chat.text() and "in 2 turns" in chat.say("/tokens")


def test_ctrl_c_stops_and_the_conversation_goes_on(terminal, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    chat = terminal("--system", "Tom is in the park. " * 5000, "--max-tokens", "12")
    chat.type("Hi")
    chat.program.send("\r")
    chat.wait(lambda: "reading " in chat.text())
    chat.program.send("\x03")
    chat.ready()
    assert chat.say("/tokens").startswith("0 tokens in 0 turns")
    chat.say("/system none")
    assert "ctrl-D" not in chat.say("Tom has the ball. Who has the ball?")
    assert "in 1 turn;" in chat.say("/tokens")


def test_ctrl_z_leaves_the_terminal_as_it_was_and_sigterm_ends_what_is_stopped(
    terminal, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    system = tmp_path / "system.txt"
    system.write_text("Tom is in the park. " * 5000)
    chat = terminal(shell=f'--system "$(cat {system})"')
    chat.type("Hi")

    def stopped():
        chat.program.send("\x1a")
        chat.wait(lambda: chat.line() == "$")
        assert not chat.screen.cursor.hidden

    def goes_on(command, until):
        chat.program.send(command + "\r")
        chat.wait(until)

    stopped()
    goes_on("fg", lambda: chat.line() == "> Hi")
    chat.program.send("\r")
    chat.wait(lambda: "reading " in chat.text() and chat.screen.cursor.hidden)
    stopped()
    goes_on("clear; fg", lambda: "reading " in chat.text() and chat.screen.cursor.hidden)
    stopped()
    # in the background, where setting the terminal's modes would stop it once more
    ended = 'kill -TERM %1; while kill -0 %1 2>/dev/null; do sleep 0.1; done; echo en""ded'
    goes_on(f"clear; {ended}", lambda: "ended" in chat.text())


def test_sigterm_leaves_the_terminal_as_it_was(terminal, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    system = tmp_path / "system.txt"
    system.write_text("Tom is in the park. " * 5000)
    chat = terminal(shell=f'--system "$(cat {system})"')
    chat.program.send("Hi\r")
    chat.wait(lambda: "reading " in chat.text() and chat.screen.cursor.hidden)
    (program,) = psutil.Process(chat.program.pid).children()
    program.terminate()
    chat.wait(lambda: "Terminated" in chat.text() and chat.line() == "$")
    assert not chat.screen.cursor.hidden


def test_the_first_ctrl_c_ends_an_answer_between_two_tokens_and_keeps_what_was_said():
    conversation = Conversation(
        ScriptedModel({"Count": " one two three four five six seven\0"}), template_named("world")
    )
    with until_interrupt(conversation.say("Count", Sampling(temperature=0))) as parts:
        for part in parts:
            if part.text == "w":
                os.kill(os.getpid(), signal.SIGINT)
    assert (conversation.turns[-1].answer, conversation.turns[-1].stop) == ("one tw", None)
    before = signal.getsignal(signal.SIGINT)
    with until_interrupt(conversation.retry(Sampling(temperature=0))) as parts:
        for _ in parts:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
    assert (conversation.turns[-1].answer, conversation.turns[-1].stop) == ("", None), (
        "the second one changes nothing"
    )
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(KeyboardInterrupt), until_interrupt(conversation.retry()):
        os.kill(os.getpid(), signal.SIGINT)  # before the first token it is heard at once


def test_markdown_is_rendered_and_finished_blocks_are_never_drawn_again():
    from rich.console import Console
    from rwkv_engine_cli.chat.markdown import Answer, finished

    from rwkv_engine.chat.conversation import Part

    text = "# Title\n\none\ntwo\n\n- a\n- **b**\n\n```python\nx = 1\n\ny = 2\n```\n\n1. c\n\n2. d\n\n| p | q |\n|---|---|\n| r | s |\n\nlast"
    for end in range(len(text)):
        whole, part = finished(text), finished(text[:end])
        assert part <= whole and text[:part] in (
            "",
            *(text[: text.index(b)] for b in ("one", "- a", "```py", "1. c", "2. d", "| p", "last")),
        )
    console = Console(force_terminal=True, width=60, height=12, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    Answer(console, lambda: "status").show(iter([Part("answer", c) for c in text]))
    shown = console.export_text()
    for wanted in ("Title", "one\ntwo", " • b", "x = 1", " 2 d", "last"):
        assert wanted in shown.replace(" \n", "\n").replace("  \n", "\n") or wanted in re.sub(
            r" +\n", "\n", shown
        ), wanted
    console.file.close()
