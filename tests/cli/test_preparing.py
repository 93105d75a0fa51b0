"""Compiling and reading while a person waits or types: what is shown, and that ctrl-C is heard at once."""

import re
import time

import pytest
from rwkv_engine_cli.preparing import Preparation
from terminal import Terminal

from rwkv_engine import OptionError
from rwkv_engine.running import compiling

#: the command, with a compiler that works for so many seconds and cannot be interrupted
SLOW = """
import sys, time
from numba.core import event
from rwkv_engine.running import compiling
from rwkv_engine.kernels.calling import ring
real, seconds = compiling.programs, float(sys.argv.pop(1))
compiling.PATIENCE = compiling.INTERVAL = 0.1
import rwkv_engine_cli.generate
rwkv_engine_cli.generate.PATIENCE = 0.05

def slow():
    with event.trigger_event("numba:compile", data={"dispatcher": ring}):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with event.trigger_event("numba:compile", data={"dispatcher": ring}):
                time.sleep(0.05)

compiling.programs = lambda *given: (compiling.Program("slow", slow), *real(*given))
from rwkv_engine_cli.app import main
main()
"""
COUNTING = re.compile(r"compiling \d+ s")


@pytest.fixture
def slow(tmp_path):
    """slow(seconds, *arguments): a terminal with a command that compiles for so long."""
    opened = []

    def start(seconds, *arguments, **options):
        environment = {"XDG_DATA_HOME": str(tmp_path), "PYTHONFAULTHANDLER": "1", **options}
        opened.append(Terminal([str(seconds), *arguments], program=("-c", SLOW), rows=12, **environment))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


def counts(terminal):
    """How many lines of the screen count, now."""
    return sum(bool(COUNTING.search(line)) for line in terminal.screen.display)


def left(terminal):
    """The exit status of a program that ends now, and how long that took."""
    start = time.monotonic()
    terminal.wait(lambda: False, 10)
    terminal.program.wait()
    return terminal.program.exitstatus, time.monotonic() - start


def test_one_types_while_programs_are_compiled_and_a_question_waits_for_them(slow):
    chat = slow(4, "chat", "--temperature", "0")
    chat.ready()
    chat.wait(lambda: counts(chat) == 1)
    chat.type("Tom has the ball. Who has the ball?")
    assert counts(chat) == 1, "the line below the prompt counts"
    chat.program.send("\r")
    chat.wait(lambda: counts(chat) == 1 and chat.line() != "> Tom has the ball. Who has the ball?")
    chat.program.send("\x03")  # heard at once: the question is dropped, and compiling goes on
    chat.wait(lambda: "(stopped)" in chat.text(), 2)
    chat.ready()
    chat.wait(lambda: counts(chat) == 1)
    assert chat.say("Tom has the ball. Who has the ball?").strip() == "Tom has the ball."
    assert counts(chat) == 0 and "Traceback" not in chat.text()


def test_who_leaves_while_programs_are_compiled_need_not_wait_for_them(slow):
    chat = slow(30, "chat")
    chat.ready()
    chat.wait(lambda: counts(chat) == 1)
    chat.program.send("\x04")
    status, seconds = left(chat)
    assert status == 0 and seconds < 3 and "Traceback" not in chat.text()


def test_generate_counts_in_one_line_and_hears_ctrl_c(slow):
    text = slow(30, "generate", "Once upon a time", columns=30)
    for second in (0, 1):
        text.wait(lambda second=second: f"compiling {second} s" in text.text(), 20)
        assert counts(text) == 1 and len(text.text().splitlines()) == 1
    text.program.send("\x03")
    status, seconds = left(text)
    assert status == 130 and seconds < 3 and "Traceback" not in text.text()


def test_what_a_helper_thread_ran_into_is_raised_where_it_is_waited_for(monkeypatch):
    def fail():
        raise OptionError("no")

    monkeypatch.setattr(compiling, "programs", lambda *given: (compiling.Program("fails", fail),))
    preparation = Preparation(object())
    with pytest.raises(OptionError, match="no"):
        preparation.wait()
    assert preparation.wait()  # it is said once


def test_generate_shows_how_much_of_a_long_prompt_is_read_and_takes_the_line_away(slow, tmp_path):
    (tmp_path / "long.txt").write_text("Tom is in the park. " * 2500)
    text = slow(
        0, "generate", "--file", str(tmp_path / "long.txt"), "--json", "--max-tokens", "1", columns=30
    )
    text.wait(lambda: re.search(r"reading [\d,]+ of [\d,]+", text.text()))
    text.wait(lambda: False)
    assert "reading" not in text.text() and '"stop"' in text.text().replace("\n", "")
