"""One question from the shell, options of chat and generate that go with it, and what a conversation on a
terminal says of itself.
"""

import json
import re
import subprocess
import sys

import pytest
from rwkv_engine_cli.chat.outcome import first_code
from terminal import Terminal

import rwkv_engine
from rwkv_engine.chat import Store

GREEDY = ("--temperature", "0")
QUESTION = "Tom has the ball. Who has the ball?"


def test_a_question_is_answered_once_and_nothing_is_kept(rwkv, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    answer = rwkv("chat", QUESTION, *GREEDY)
    assert answer == "Tom has the ball.\n"
    for arguments, text in (
        ((), QUESTION),
        (("-",), QUESTION),
        (("Who has the ball?",), "Tom has the ball.\n"),
    ):
        assert "Tom" in rwkv("chat", *arguments, *GREEDY, text=text)
    assert (
        not tmp_path.exists()
        or Store(tmp_path / "x").infos() == []
        and not list(tmp_path.rglob("sessions.sqlite"))[1:]
    )
    rwkv("chat", QUESTION, *GREEDY, "--session", "asked")
    assert json.loads(rwkv("sessions", "--json"))[0]["name"] == "asked"


def test_many_lines_of_standard_input_are_one_question_unless_lines_are_asked_for(rwkv):
    text = "Tom has the ball.\nWho has the ball?\n"
    assert rwkv("chat", *GREEDY, text=text).count("\n") == 1
    assert rwkv("chat", "--lines", *GREEDY, text=text).count("\n") == 2


def test_a_prompt_of_generate_is_joined_with_standard_input(rwkv):
    plain = rwkv("generate", "a\nb", "--max-tokens", "3", *GREEDY)
    assert rwkv("generate", "b", "--max-tokens", "3", *GREEDY, text="a\n") == plain
    assert rwkv("generate", "-", "--max-tokens", "3", *GREEDY, text="a\nb") == plain


def test_json_and_verbose_tell_what_it_took(rwkv, capsys):
    found = json.loads(rwkv("chat", QUESTION, *GREEDY, "--json"))
    assert found["answer"] == "Tom has the ball." and found["stop"] in ("end", "stop")
    assert found["tokens"] > 2 and found["seconds"] >= found["prompt_seconds"] > 0
    for verb in ("chat", "generate"):
        done = subprocess.run(
            [sys.executable, "-m", "rwkv_engine", verb, QUESTION, *GREEDY, "--max-tokens", "3", "-v"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        told = done.stderr
        assert re.search(r"prompt: [\d,]+ tokens, .* tokens/s; first token after [\d.]+ s", told), told
        assert "answer: 3 tokens" in told and "peak memory: " in told and "--max-tokens" in told


def test_an_answer_that_the_limit_cut_says_so(rwkv, capsys):
    done = subprocess.run(
        [sys.executable, "-m", "rwkv_engine", "chat", QUESTION, *GREEDY, "--max-tokens", "2"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "the answer was cut at 2 tokens" in done.stderr and done.returncode == 0


def test_answers_keep_to_the_form_that_was_asked_for(rwkv):
    schema = '{"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"], "additionalProperties": false}'
    found = json.loads(rwkv("chat", QUESTION, "--schema", schema, *GREEDY))
    assert type(found["a"]) is bool
    told = json.loads(rwkv("chat", QUESTION, "--choice", "yes", "--choice", "no", *GREEDY, "--json"))
    assert told["answer"] in ("yes", "no") and told["stop"] == "complete"
    lines = rwkv("chat", "--lines", "--regex", "[0-9]{3}", *GREEDY, text=f"{QUESTION}\n{QUESTION}\n").split()
    assert len(lines) == 2 and all(len(line) == 3 and line.isdigit() for line in lines)


def test_an_answer_that_the_limit_kept_from_its_form_is_an_error(rwkv):
    told = rwkv("chat", QUESTION, "--regex", "[0-9]{300}", *GREEDY, "--max-tokens", "2", status=2)
    assert "cut at 2 tokens and does not fit the regex yet" in told
    told = rwkv("chat", QUESTION, "--regex", "x", "--choice", "y", status=2)
    assert "give one of them" in told


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Here:\n```python\nx = 1\n\ny = 2\n```\nand\n```\nz\n```", "x = 1\n\ny = 2"),
        ("~~~\na\n```\nb\n~~~\n", "a\n```\nb"),
        ("```sh\nls", "ls"),
        ("no code", "no code"),
    ],
)
def test_the_first_code_block_is_extracted(text, code):
    assert first_code(text) == code


@pytest.mark.parametrize(
    "arguments", [("x", "--lines"), ("x", "--save", "--no-save"), ("--lines", "--json"), ("--lines", "-x")]
)
def test_options_that_do_not_go_together_are_refused(rwkv, arguments):
    rwkv("chat", *arguments, status=2)


def test_the_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "rwkv_engine", "-V"], capture_output=True, text=True)
    assert done.stdout == f"rwkv-engine {rwkv_engine.__version__}\n"


def test_ctrl_c_while_editing_leaves_the_last_question_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    chat = Terminal(["chat", "--temperature", "0", "--max-tokens", "12"])
    try:
        chat.ready()
        chat.say(QUESTION)
        chat.program.send("/edit\r")
        chat.wait(lambda: chat.line() == f"edit> {QUESTION}")
        chat.program.send("\x03")
        chat.wait(lambda: "(not changed)" in chat.text())
        chat.ready()
        chat.say("Mia is in the park. Where is Mia?")
        assert "in 2 turns" in chat.say("/tokens")
        assert "tom-has-the-ball' is kept" in chat.say("/new")
        assert chat.say("/tokens").startswith("0 tokens in 0 turns")
    finally:
        chat.close()
