"""The command `rwkv`, as a person or a script sees it."""

import json
import os
import subprocess
import sys

import pytest

PROGRAM = [sys.executable, "-m", "rwkv_engine_cli.app"]
GREEDY = ["--temperature", "0", "--max-tokens", "12"]


def rwkv(*arguments, text="", env=None):
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        input=text,
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, **(env or {})},
    )


@pytest.fixture(scope="module")
def story():
    done = rwkv("generate", "Once upon a time", *GREEDY)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_story_is_continued(story):
    assert story.startswith("Once upon a time ") and len(story.split()) > 8


def test_the_prompt_may_come_from_a_file_or_standard_input(story, tmp_path):
    (tmp_path / "p.txt").write_text("Once upon a time")
    assert rwkv("generate", "--file", tmp_path / "p.txt", *GREEDY).stdout == story
    assert rwkv("generate", *GREEDY, text="Once upon a time").stdout == story


def test_json_lines_hold_the_steps(story):
    lines = [
        json.loads(line)
        for line in rwkv("generate", "Once upon a time", *GREEDY, "--json").stdout.splitlines()
    ]
    assert "Once upon a time" + "".join(line["text"] for line in lines) + "\n" == story
    assert [line["stop"] for line in lines] == [None] * 11 + ["length"]
    assert all(line["logprob"] <= 0 and isinstance(line["token"], int) for line in lines)


def test_a_saved_state_goes_on_where_the_text_ended(story, tmp_path):
    saved = tmp_path / "s.safetensors"
    first = rwkv(
        "generate", "Once upon a", *GREEDY[:2], "--max-tokens", "1", "--save-state", saved
    ).stdout.strip()
    assert first == "Once upon a time"
    rest = rwkv("generate", " there", "--state", saved, *GREEDY[:2], "--max-tokens", "11")
    assert story.startswith("Once upon a time there") and "Once upon a time" + rest.stdout == story


def test_a_seed_makes_a_text_come_again():
    runs = [
        rwkv("generate", "Once", "--seed", seed, "--max-tokens", "15", "--preset", "story").stdout
        for seed in (1, 1, 2)
    ]
    assert runs[0] == runs[1] != runs[2]


def test_constrained_text_is_all_that_is_printed(tmp_path):
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    for given in (json.dumps(schema), tmp_path / "schema.json"):
        done = rwkv("generate", "Tom", "--schema", given, "--seed", "1", "--max-tokens", "30")
        assert done.returncode == 0 and isinstance(json.loads(done.stdout)["a"], int)
    assert rwkv("generate", "Tom", "--choice", "yes", "--choice", "no").stdout in ("yes\n", "no\n")
    thought, _, answer = rwkv(
        "generate", "Tom <think>", "--regex", "[0-9]{3}", "--after", "</think>", "--max-tokens", "25"
    ).stdout.partition("</think>")
    assert answer.strip().isdigit() and len(answer.strip()) == 3


def test_chat_answers_each_line_and_keeps_what_was_said():
    done = rwkv(
        "chat",
        "--lines",
        "--temperature",
        "0",
        text="Tom has the ball. Who has the ball?\n\nMia is in the park. Where is Mia?\n",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["Tom has the ball.", "Mia is in the park."]


def test_info_tells_sizes():
    rows = json.loads(rwkv("info", "--json").stdout)
    assert (rows["family"], rows["vocabulary"], rows["types"]) == ("RWKV-7", 2048, ["BF16"])
    assert 2_500_000 <= rows["parameters"] <= 6_000_000
    assert "RWKV-7" in rwkv("info").stdout


def test_tokenize_goes_there_and_back():
    ids = rwkv("tokenize", "Hello, Tom!").stdout
    assert rwkv("tokenize", "--decode", ids).stdout == "Hello, Tom!\n"
    assert (
        rwkv("tokenize", "--tokenizer", "world", " Hello", env={}).returncode == 2
    )  # has ids that the embedded model lacks
    assert int(rwkv("tokenize", "--count", "Hello, Tom!").stdout) == len(ids.split())
    assert len(rwkv("tokenize", "--pieces", "Hello, Tom!").stdout.splitlines()) == len(ids.split())


def test_the_version_is_the_packages():
    import rwkv_engine

    assert rwkv("--version").stdout == f"rwkv-engine {rwkv_engine.__version__}\n"


def test_help_is_quick_and_imports_no_numba():
    program = (
        "import sys; sys.argv = ['rwkv', '--help']; import rwkv_engine_cli.app as a\n"
        "try: a.main()\nexcept SystemExit: pass\nassert 'numba' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60).returncode == 0
    spent = []  # of the processor, since tests may run beside one another
    for _ in range(5):
        before = os.times()
        assert "generate" in rwkv("--help").stdout
        after = os.times()
        spent.append(
            after.children_user + after.children_system - before.children_user - before.children_system
        )
    assert min(spent) < 0.25, f"{min(spent):.2f} s"


@pytest.mark.parametrize(
    "arguments",
    [
        ("generate", "x", "-m", "no-such-file"),
        ("generate", "x", "-m", "TEXT"),
        ("generate", "x", "-m", "EMPTY"),
        ("generate", "x", "-m", "TRUNCATED"),
        ("info", "TEXT"),
        ("info", "no-such-file"),
        ("generate", "x", "--file", "TEXT"),
        ("generate", "--file", "no-such-file"),
        ("generate", "x", "--preset", "nothing"),
        ("generate", "x", "--temperature", "-1"),
        ("generate", "x", "--threads", "0"),
        ("generate", "x", "--max-tokens", "0"),
        ("generate", "x", "--ban", "99999"),
        ("generate", "x", "--bias", "1:2"),
        ("generate", "x", "--stop", ""),
        ("generate", "x", "--state", "TEXT"),
        ("generate", "x", "--weights", "int3"),
        ("generate", "x", "--max-tokens", "1", "--save-state", "no-such-folder/s"),
        ("generate", "x", "--schema", '{"type":'),
        ("generate", "x", "--schema", '{"type": "objec"}'),
        ("generate", "x", "--schema", "TEXT"),
        ("generate", "x", "--schema", "no-such-file"),
        ("generate", "x", "--regex", "("),
        ("generate", "x", "--regex", "[0-9]{50}", "--max-tokens", "3"),
        ("generate", "x", "--choice", ""),
        ("generate", "x", "--choice", "a", "--regex", "b"),
        ("generate", "x", "--after", "</think>"),
        ("chat", "--template", "llama"),
        ("chat", "--template", "TEXT", "--think", "on"),
        ("chat", "--think", "deep"),
        ("chat", "-c", "--no-save"),
        ("chat", "-c", "--session", "x"),
        ("sessions", "show", "no-such-conversation"),
        ("sessions", "delete", "no-such-conversation"),
        ("tokenize", "--decode", "a b"),
        ("tokenize", "--decode", "99999"),
        ("tokenize", "x", "--tokenizer", "klingon"),
    ],
    ids=" ".join,
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, arguments):
    (tmp_path / "TEXT").write_text("This is a text and no model.\n" * 3)
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "TRUNCATED").write_bytes((1000).to_bytes(8, "little") + b'{"emb.weight":')
    known = {name: str(tmp_path / name) for name in ("TEXT", "EMPTY", "TRUNCATED")}
    done = rwkv(*(known.get(a, a) for a in arguments))
    lines = [line for line in done.stderr.splitlines() if "compiling" not in line]
    assert done.returncode == 2
    assert len(lines) == 1 and lines[0].startswith("rwkv: "), done.stderr
    assert {p.name for p in tmp_path.iterdir()} == set(known)


def test_a_kept_conversation_is_gone_on_with_listed_shown_exported_and_deleted(tmp_path):
    data = {"XDG_DATA_HOME": str(tmp_path)}
    assert rwkv("chat", "-c", env=data).stderr.startswith("rwkv: no conversation is kept yet")
    said = rwkv(
        "chat", "--save", "--temperature", "0", text="Tom has the ball. Who has the ball?\n", env=data
    ).stdout
    again = rwkv("chat", "-c", text="Mia is in the park. Where is Mia?\n", env=data).stdout
    rwkv("chat", "--session", "other", "--max-tokens", "1", text="Hi\n", env=data)
    assert rwkv("chat", "--no-save", "--max-tokens", "1", text="Hi\n", env=data).returncode == 0
    assert [line.split()[0] for line in rwkv("sessions", env=data).stdout.splitlines()] == [
        "other",
        "tom-has-the-ball",
    ]
    shown = rwkv("sessions", "show", "tom-has-the-ball", env=data).stdout
    assert [line for line in shown.splitlines() if line.startswith("assistant")] == [
        f"assistant: {a.strip()}" for a in (said, again)
    ]
    rwkv("sessions", "export", "tom-has-the-ball", "--format", "json", "-o", tmp_path / "e.json", env=data)
    assert len(json.loads((tmp_path / "e.json").read_text())["messages"]) == 4
    assert "## Assistant" in rwkv("sessions", "export", "tom-has-the-ball", env=data).stdout
    assert rwkv("sessions", "delete", "other", "tom-has-the-ball", env=data).returncode == 0
    assert rwkv("sessions", env=data).stdout == ""
    assert list((tmp_path / "rwkv_engine" / "states").iterdir()) == []


def test_a_conversation_that_cannot_be_kept_goes_on_with_a_warning(tmp_path):
    (tmp_path / "rwkv_engine").write_text("not a folder")
    done = rwkv("chat", "--save", "--max-tokens", "1", text="Hi\n", env={"XDG_DATA_HOME": str(tmp_path)})
    assert (
        done.returncode == 0
        and "this conversation is not kept" in done.stderr
        and len(done.stderr.splitlines()) == 2  # and that the answer was cut
    )


def test_an_empty_list_of_conversations_says_how_to_begin_one(rwkv, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr("rwkv_engine_cli.sessions.complain", print)
    assert "`rwkv chat` begins one" in rwkv("sessions")
