"""What reaches a terminal, and what happens where the standard streams are closed, full, or of another
encoding.
"""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rwkv_engine_cli.output import Visible, typed, visible

import rwkv_engine
from rwkv_engine.chat import Store
from rwkv_engine.chat.conversation import Part
from rwkv_engine.loading import embedded

CLI = Path(__file__).resolve().parents[2] / "cli"
PROGRAM = [sys.executable, "-m", "rwkv_engine_cli.app"]
#: red, a window title, the clipboard, an 8-bit CSI, carriage return, backspace, delete, NUL; and nothing that
#: may go
EVIL = "\x1b[31mred\x1b[0m \x1b]0;title\x07\x1b]52;c;cGFzc3dk\x1b\\a\x9b5mb\r\x08\x7f\x00\tend\n"
SEEN = "red a5mb\tend\n"
#: the same for a model of bytes, which has neither a NUL in its texts nor 8-bit characters
ANSWER, ANSWER_SEEN = EVIL.replace("\x00", "").replace("\x9b5m", ""), "red ab\tend"
FORBIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
#: every verb that ends by itself, as it is called in the cheapest way
VERBS = [
    ("--help",),
    ("--version",),
    ("generate", "x", "--max-tokens", "2"),
    ("generate", "x", "--max-tokens", "2", "--json"),
    ("chat", "--no-save", "--max-tokens", "2"),
    ("info",),
    ("info", "--json"),
    ("tokenize", "Hello"),
    ("pull",),
    ("models",),
    ("sessions",),
    ("state", "info", "no-such-file"),
]


def test_a_text_is_shown_without_what_a_terminal_would_obey():
    assert visible(EVIL) == SEEN
    assert visible("täglich\t日本 \U0001f600\n") == "täglich\t日本 \U0001f600\n"
    # what is left open ends with the line, or where something stands that cannot belong to it
    assert visible("\x1b]0;title\nnext\x1b[3") == "\nnext" and visible("\x1b[3€") == "€"


@given(
    st.lists(
        st.sampled_from(["\x1b", "[", "]", "3", ";", "m", "\\", "\x07", "\n", "a", " ", "P"]), max_size=14
    ),
    st.data(),
)
def test_a_sequence_is_hidden_wherever_the_text_is_cut(characters, data):
    text = "".join(characters)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)))))
    shown = Visible()
    pieces = "".join(shown(text[a:b]) for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True))
    assert pieces == visible(text) and not FORBIDDEN.search(pieces)


@pytest.mark.parametrize(
    "text", ["\x1b[ 3", "\x1b[3 3m", "\x1b[ m3", "\x1b 3a", "\x1b]a\x1b\\b", "\x1b[3\x1b[m3"]
)
def test_a_sequence_that_comes_letter_by_letter_ends_where_the_whole_one_does(text):
    shown = Visible()
    assert "".join(map(shown, text)) == visible(text)


@given(st.text())
def test_nothing_that_a_terminal_would_obey_is_ever_shown(text):
    assert not FORBIDDEN.search(visible(text))


def test_bytes_that_a_terminal_cannot_have_sent_are_read_as_utf_8_or_replaced():
    assert typed("caf\udcc3\udca9, é") == "café, é" and typed("caf\udce9") == "caf�"


def test_every_verb_prints_through_the_file_that_hides_them():
    """What compiling says is constant; rich and prompt_toolkit only draw what was made visible."""
    for path in CLI.rglob("*.py"):
        calls = [
            ast.unparse(node.func)
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call)
        ]
        assert path.name in ("output.py", "progress.py") or not {
            "print",
            "typer.echo",
            "click.echo",
            "sys.stdout.write",
        } & set(calls), path


def on_terminal(*arguments, text=None, **environment):
    """What the program writes to a terminal, byte by byte."""
    program = pexpect.spawn(
        PROGRAM[0],
        [*PROGRAM[1:], *arguments],
        env={**os.environ, **environment},
        timeout=60,
        dimensions=(40, 200),
    )
    program.setecho(False)
    if text is not None:
        program.send(text)
    program.expect(pexpect.EOF)
    program.close()
    return program.before.decode().replace("\r\n", "\n")


def test_decoded_tokens_are_filtered_on_a_terminal_and_exact_in_a_pipe():
    ids = " ".join(map(str, rwkv_engine.load().tokenizer.encode(EVIL)))
    assert (
        subprocess.run([*PROGRAM, "tokenize", "--decode", ids], capture_output=True).stdout.decode()
        == EVIL + "\n"
    )
    assert on_terminal("tokenize", "--decode", ids) == SEEN + "\n"


def test_a_generated_text_is_filtered_on_a_terminal_and_exact_in_a_pipe():
    text = EVIL.replace("\x00", "")  # an argument cannot hold it
    arguments = ["generate", "x", "--choice", text, "--max-tokens", "200"]
    assert subprocess.run([*PROGRAM, *arguments], capture_output=True).stdout.decode() == text + "\n"
    assert on_terminal(*arguments) == SEEN + "\n"
    prompt = ["generate", text, "--max-tokens", "1"]
    assert not FORBIDDEN.search(on_terminal(*prompt))


def test_names_and_errors_are_filtered_on_a_terminal(tmp_path):
    assert (
        on_terminal("info", f"{tmp_path}/\x1b[31mred")
        == f"rwkv: {tmp_path}/red does not exist; give the path of a model file or folder.\n"
    )
    (tmp_path / "a\x1b[31mred").write_text("no model")
    shown = on_terminal("info", f"{tmp_path}/a\x1b[31mred")
    assert f"{tmp_path}/ared" in shown and not FORBIDDEN.search(shown)


def test_a_kept_conversation_is_filtered_on_a_terminal(tmp_path, monkeypatch):
    from scripted_model import ScriptedModel

    from rwkv_engine.chat import Session
    from rwkv_engine.chat.conversation import Conversation
    from rwkv_engine.text.chat import template_named

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    model = ScriptedModel({"Hi": f" {ANSWER}\0"})
    model.fingerprint = "scripted"
    conversation = Conversation(model, template_named("world"))
    list(conversation.say("Hi", rwkv_engine.Sampling(temperature=0)))
    session = Session(Store(), conversation, "evil")
    session.keep({})
    shown = on_terminal("sessions", "show", "evil")
    assert f"assistant: {ANSWER_SEEN}" in shown and not FORBIDDEN.search(shown)
    piped = subprocess.run([*PROGRAM, "sessions", "show", "evil"], capture_output=True).stdout.decode()
    assert ANSWER.strip() in piped
    assert not FORBIDDEN.search(on_terminal("sessions"))


def test_an_answer_is_filtered_in_a_chat_on_a_terminal(capsys, monkeypatch):
    from rich.console import Console
    from rwkv_engine_cli.chat.markdown import Answer
    from rwkv_engine_cli.chat.plain import Plain

    for kind in ("answer", "thinking"):
        with open(os.devnull, "w") as nowhere:
            console = Console(
                force_terminal=True, color_system=None, width=60, height=12, record=True, file=nowhere
            )
            Answer(console, lambda: "\x1b[31mstatus").show(iter([Part(kind, c) for c in EVIL * 2]))
            text = console.export_text(styles=True)
        assert "\x1b]" not in text and "\x1b[31m" not in text and "\x9b" not in text
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    Plain().stream(None, iter([Part("answer", c) for c in EVIL]))
    assert capsys.readouterr().out == SEEN + "\n"


def shell(arguments, redirection, **environment):
    """Exit code and standard error of the program, its streams led as a shell would."""
    command = f'exec "$@" {redirection}'
    done = subprocess.run(
        ["sh", "-c", command, "sh", *PROGRAM, *arguments],
        input=b"Hi\n",
        capture_output=True,
        timeout=100,
        env={**os.environ, **environment},
    )
    lines = done.stderr.decode("utf-8", "replace").splitlines()
    return done.returncode, [line for line in lines if "compiling" not in line], done.stdout


@pytest.mark.parametrize("arguments", VERBS, ids=" ".join)
def test_a_full_disk_behind_standard_output_is_one_line(arguments):
    if arguments[0] in ("sessions", "state"):
        pytest.skip("prints nothing here")
    code, lines, _ = shell(arguments, ">/dev/full")
    assert (code, lines) == (2, ["rwkv: standard output: No space left on device"])


def test_a_program_in_a_folder_that_was_deleted_says_so(tmp_path):
    command = 'cd "$1" && rmdir "$1" && shift && exec "$@"'
    words = [*PROGRAM, "quantize", str(embedded()), "new.safetensors"]
    gone = tmp_path / "gone"
    gone.mkdir()
    done = subprocess.run(
        ["sh", "-c", command, "sh", str(gone), *words], capture_output=True, text=True, timeout=100
    )
    assert (done.returncode, done.stderr.splitlines()[-1:]) == (
        2,
        ["rwkv: the current folder: No such file or directory"],
    )


@pytest.mark.slow_but("<&- >&- 2>&-", "generate x --max-tokens 2-")
@pytest.mark.parametrize("redirection", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", "2>/dev/full"])
@pytest.mark.parametrize("arguments", VERBS, ids=" ".join)
def test_closed_streams_never_end_in_a_traceback(arguments, redirection):
    code, lines, _ = shell(arguments, redirection)
    notes = ("the answer was cut at", "no conversations yet")  # no complaints
    lines = [line for line in lines if not any(note in line for note in notes)]
    assert code in (0, 2) and len(lines) <= (code == 2), lines
    assert code == 0 or arguments[0] == "state"


@pytest.mark.parametrize(
    "environment", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "latin-1"}, {"PYTHONIOENCODING": "ascii"}]
)
@pytest.mark.parametrize(
    "arguments",
    [
        ("generate", "日本 \x80é", "--max-tokens", "2"),
        ("generate", "日本", "--max-tokens", "2", "--json"),
        ("tokenize", "--decode", "IDS"),
        ("info", "日本-é"),
        ("sessions", "show", "日本"),
        ("generate", "x", "--preset", "日本"),
    ],
    ids=lambda a: " ".join(a).encode("ascii", "replace").decode(),
)
def test_an_output_that_lacks_characters_gets_question_marks(arguments, environment):
    ids = " ".join(map(str, rwkv_engine.load().tokenizer.encode("日本é")))
    code, lines, out = shell([ids if a == "IDS" else a for a in arguments], "", **environment)
    assert code == (2 if arguments[0] in ("info", "sessions") or "--preset" in arguments else 0), lines
    assert len(lines) == (code == 2), lines
    assert code or out


def test_a_prompt_that_is_no_text_is_one_line():
    for verb in ("generate", "tokenize"):
        done = subprocess.run([*PROGRAM, verb, b"caf\xe9"], capture_output=True)
        assert done.returncode == 2 and done.stderr.count(b"\n") == 1, done.stderr
    for option in ("--stop", "--choice", "--regex", "--preset", "--weights", "--schema", "--bias"):
        done = subprocess.run([*PROGRAM, "generate", "x", option, b"caf\xe9"], capture_output=True)
        assert done.returncode == 2 and done.stderr.count(b"\n") == 1, done.stderr
    done = subprocess.run([*PROGRAM, "chat", "--session", b"caf\xe9"], input=b"Hi\n", capture_output=True)
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1, done.stderr
    for verb in ("chat", "generate", "tokenize"):
        done = subprocess.run([*PROGRAM, verb], input=b"caf\xe9\n", capture_output=True)
        assert done.returncode == 2 and done.stderr.count(b"\n") == 1 and b"UTF-8" in done.stderr.upper(), (
            done.stderr
        )


def test_a_reader_that_leaves_is_no_failure():
    long = "a" * 300_000
    done = subprocess.run(
        [
            "bash",
            "-c",
            'printf %s "$1" | "${@:2}" tokenize --pieces | head -1; exit ${PIPESTATUS[1]}',
            "sh",
            long[:100_000],
            *PROGRAM,
        ],
        capture_output=True,
    )
    assert done.returncode == 0 and done.stderr == b"" and done.stdout.count(b"\n") == 1


def test_every_list_is_told_as_json_too(rwkv, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    for arguments in (
        ("models",),
        ("models", "list"),
        ("models", "ls"),
        ("sessions",),
        ("sessions", "ls"),
        ("pull",),
    ):
        assert isinstance(json.loads(rwkv(*arguments, "--json")), list)
