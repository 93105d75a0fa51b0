"""Options: those of Sampling are made of its fields, and no value is silently ignored or replaced."""

import dataclasses
import inspect
import json
import os
import re
import signal
import subprocess
import sys

import pytest
import typer
from rwkv_engine_cli import sampling as options
from rwkv_engine_cli.app import app

import rwkv_engine
from rwkv_engine import Sampling

PROGRAM = [sys.executable, "-m", "rwkv_engine_cli.app"]


def flags(verb):
    """Every name of every option of a verb."""
    command = typer.main.get_command(app).commands[verb]
    return {name for parameter in command.params for name in parameter.opts}


def test_every_field_of_sampling_with_a_help_text_is_an_option_of_generate_and_chat_and_of_set():
    fields = [field for field in dataclasses.fields(Sampling) if "help" in field.metadata]
    assert {"temperature", "top_p", "top_k", "min_p", "presence", "frequency", "decay", "seed"} <= {
        f.name for f in fields
    }
    for field in fields:
        name = field.metadata.get("option", field.name)
        for verb in ("generate", "chat"):
            assert f"--{name.replace('_', '-')}" in flags(verb)
        assert (name in options.SINGLE) == (field.name not in ("bias", "banned"))
    assert not any("processors" in flag for flag in flags("generate"))


def test_a_new_field_appears_without_another_line(monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class More(Sampling):
        typical: float = dataclasses.field(default=1.0, metadata={"help": "A filter of tomorrow."})
        hook: object = None

    new = next(field for field in dataclasses.fields(More) if field.name == "typical")
    monkeypatch.setattr(options, "FIELDS", {**options.FIELDS, "typical": new})
    monkeypatch.setattr(options, "Sampling", More)
    seen = []

    @options.with_sampling
    def verb(prompt: str, sampling: options.Chosen = options.NOTHING) -> None:
        seen.append(sampling.over())

    assert "sampling_typical" in inspect.signature(verb).parameters
    small = typer.Typer()
    small.command()(verb)
    small(["x", "--typical", "0.5"], standalone_mode=False)
    assert seen[0].typical == 0.5


def test_options_are_put_over_a_preset_and_a_preset_over_what_was_kept():
    kept = options.restored({"temperature": 0.5, "top_k": 7, "bias": [[3, 1.5]], "banned": [4], "gone": 1})
    assert kept == Sampling(temperature=0.5, top_k=7, bias=((3, 1.5),), banned=(4,))
    assert options.Chosen(None, {"top_p": 0.1}).over(kept) == dataclasses.replace(kept, top_p=0.1)
    greedy = Sampling.preset("greedy")
    assert options.Chosen("greedy", {"seed": 2}).over(kept) == dataclasses.replace(greedy, seed=2)
    assert options.Chosen(None, {}).over() == Sampling()


@pytest.mark.parametrize("verb", ["generate", "chat"])
@pytest.mark.parametrize(
    "option",
    [
        "--max-tokens=0",
        "--max-tokens=-1",
        "--max-tokens=x",
        "--max-tokens=",
        "--temperature=",
        "--temperature=nan",
        "--temperature=inf",
        "--temperature=-1",
        "--top-p=2",
        "--top-k=-1",
        "--top-k=1.5",
        "--min-p=nan",
        "--decay=1e400",
        "--seed=-1",
        "--seed=",
        "--ban=x",
        "--bias=1",
        "--bias=1=nan",
        "--bias=1=",
        "--preset=",
        "--weights=",
        "--threads=0",
        "--threads=99999999999999999999",
        "--ram=0",
        "--ram=nan",
        "--tokenizer=",
        "--model=",
        "--temprature=1",
    ],
)
def test_a_value_that_makes_no_sense_is_refused_in_one_sentence(rwkv, verb, option):
    more = ["x"] if verb == "generate" else ["--no-save"]
    complaint = rwkv(verb, *more, option, status=2, text="Hi\n")
    assert option.split("=")[0].strip("-") in complaint.replace("_", "-")


def test_alternatives_without_json_are_not_silently_left_out(rwkv):
    assert "--json" in rwkv("generate", "x", "--alternatives", "2", status=2)


@pytest.mark.parametrize("option", ["--think=", "--template=", "--session="])
def test_an_empty_choice_is_not_taken_for_the_default(rwkv, option):
    rwkv("chat", option, status=2, text="Hi\n")


def test_a_huge_top_k_keeps_all(rwkv):
    for k in ("99999999999999999999999", "0"):
        assert rwkv("generate", "x", "--max-tokens", "3", "--seed", "1", "--top-k", k) == rwkv(
            "generate", "x", "--max-tokens", "3", "--seed", "1"
        )


def test_the_nearest_name_is_told(rwkv):
    assert "'--temperature'" in rwkv("generate", "x", "--temprature", "1", status=2)
    assert "'generate'" in rwkv("genrate", status=2)
    assert "'--json'" in rwkv("info", "--jsn", status=2)


def test_the_model_is_an_argument_an_option_or_a_variable(rwkv, monkeypatch, tmp_path):
    path = str(rwkv_engine.describe().path)
    for arguments in ((path,), ("-m", path)):
        assert json.loads(rwkv("info", *arguments, "--json"))["path"] == path
    assert "give one of them" in rwkv("info", path, "-m", path, status=2)
    monkeypatch.setenv("RWKV_MODEL", "no-such-model")
    for arguments in (
        ("info",),
        ("generate", "x"),
        ("tokenize", "x"),
        ("warmup",),
        ("chat", "--no-save"),
        ("bench",),
    ):
        assert "no-such-model" in rwkv(*arguments, status=2, text="Hi\n")
    assert json.loads(rwkv("info", path, "--json"))["path"] == path
    monkeypatch.setenv("RWKV_MODEL", "")
    assert json.loads(rwkv("info", "--json"))["path"] == path


def test_a_conversation_goes_on_with_its_own_model_whatever_the_variable_says(rwkv, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    rwkv("chat", "--save", "--max-tokens", "2", text="Hi\n")
    monkeypatch.setenv("RWKV_MODEL", "no-such-model")
    rwkv("chat", "-c", "--max-tokens", "2", text="Hi\n")


def test_short_names_of_verbs_and_options(rwkv, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert rwkv("-h") == rwkv("--help") and rwkv("-V") == rwkv("--version")
    assert rwkv("generate", "-h") == rwkv("generate", "--help")
    assert rwkv("models", "ls") == rwkv("models") and "no model is called" in rwkv(
        "models", "rm", "x", status=2
    )
    assert rwkv("sessions", "ls") == rwkv("sessions") and rwkv("sessions", "rm", "x", status=2)


def test_a_shell_completes_verbs_models_and_conversations(rwkv, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    rwkv("chat", "Hi", "--session", "holidays", "--max-tokens", "2")
    (tmp_path / "rwkv_engine" / "models").mkdir()
    (tmp_path / "rwkv_engine" / "models" / "small.json").write_text("{}")

    def completed(line):
        words = {"_RWKV_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
        return subprocess.run(
            PROGRAM, env={**os.environ, **words}, capture_output=True, text=True, timeout=60
        ).stdout.split()

    assert completed("rwkv gen") == ["generate"]
    assert completed("rwkv chat -m sm") == completed("rwkv info sm") == ["small"]
    assert completed("rwkv chat --session ho") == completed("rwkv sessions show ho") == ["holidays"]
    assert "--install-completion" in rwkv("--help")


def test_the_command_alone_says_what_to_begin_with(rwkv):
    told = rwkv()
    assert rwkv_engine.__version__ in told and len(told.splitlines()) < 10
    for verb in re.findall(r"^  rwkv (\w+)", told, re.MULTILINE):
        assert rwkv(verb, "--help")
    assert "nothing" in rwkv("nothing", status=2)


def test_help_is_as_wide_as_the_terminal_and_shows_defaults(rwkv, monkeypatch):
    monkeypatch.setenv("COLUMNS", "150")
    shown = rwkv("generate", "--help")
    assert 120 < max(map(len, shown.splitlines())) <= 150
    assert "[default: 0.85]" in shown and "[default: 256]" in shown


def greedy(*more):
    return ["generate", "Once upon a time", "--temperature", "0", "--max-tokens", "100000", *map(str, more)]


def test_ctrl_c_saves_the_state_behind_the_last_whole_token(tmp_path, embedded):
    saved = tmp_path / "s"
    program = subprocess.Popen(
        [*PROGRAM, *greedy("--save-state", saved)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    )
    first = program.stdout.read(40)
    program.send_signal(signal.SIGINT)
    rest, complaint = program.communicate(timeout=60)
    assert program.returncode == 130 and b"Traceback" not in complaint
    text = (first + rest).decode().removesuffix("\n")
    state = embedded.load_state(saved)
    same = embedded.new_state()
    written = "".join(
        step.text
        for step in embedded.generate(
            "Once upon a time",
            sampling=Sampling(temperature=0),
            state=same,
            max_tokens=state.position - len(embedded.tokenizer.encode("Once upon a time")),
        )
    )
    assert "Once upon a time" + written == text and same == state


def test_ctrl_c_before_the_first_token_writes_no_state(tmp_path):
    saved = tmp_path / "s"
    (tmp_path / "prompt").write_text("Tom has the ball. " * 60_000)
    # compiles, if nothing else did: that takes longer than is waited for below
    subprocess.run([*PROGRAM, "generate", "x", "--max-tokens", "1"], check=True, capture_output=True)
    command = [
        *PROGRAM,
        "generate",
        "-f",
        str(tmp_path / "prompt"),
        "--no-prefix-cache",
        "--save-state",
        str(saved),
    ]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with pytest.raises(subprocess.TimeoutExpired):
        program.communicate(timeout=5)
    program.send_signal(signal.SIGINT)
    _, complaint = program.communicate(timeout=60)
    lines = [line for line in complaint.decode().splitlines() if "compiling" not in line]
    assert program.returncode == 130 and not saved.exists()
    assert len(lines) == 1 and "is not written" in lines[0]


@pytest.mark.parametrize("reader", ["| head -c 60 >/dev/null; exit ${PIPESTATUS[0]}", ">/dev/full"])
def test_a_state_is_saved_also_when_the_text_cannot_be_written_any_more(tmp_path, embedded, reader):
    saved = tmp_path / "s"
    done = subprocess.run(
        ["bash", "-c", f'"$@" {reader}', "sh", *PROGRAM, *greedy("--save-state", saved)], capture_output=True
    )
    assert done.returncode == (2 if "full" in reader else 0) and b"Traceback" not in done.stderr
    assert embedded.load_state(saved).position > 4
    assert re.fullmatch(rb"(rwkv: compiling.*\n)?(rwkv: standard output: .*\n)?", done.stderr), done.stderr


def test_drafts_change_no_text_of_the_command_and_odd_ones_are_refused(rwkv):
    asked = ("generate", "Tom has a red ball. Tom has a red", "--max-tokens", 12, "--seed", 3)
    plain = rwkv(*asked, "--draft", "none")
    assert plain == rwkv(*asked) == rwkv(*asked, "--draft", "ngram")
    assert "no-such-model" in rwkv(*asked, "--draft", "no-such-model", status=2)


def test_a_model_behind_a_link_is_kept_under_the_links_name(tmp_path, monkeypatch):
    """As in the hub's cache: the link lies among the files that belong to it, what it points to does not."""
    from rwkv_engine_cli.chat.verb import _absolute

    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "sha").write_text("")
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "blobs" / "sha")
    monkeypatch.chdir(tmp_path)
    assert _absolute("model.safetensors") == str(tmp_path / "model.safetensors")
    assert _absolute("a-short-name") == "a-short-name"


def test_a_schema_file_may_begin_with_a_byte_order_mark(rwkv, tmp_path):
    (tmp_path / "s.json").write_bytes(b'\xef\xbb\xbf{"type": "boolean"}')
    assert rwkv("generate", "x", "--schema", tmp_path / "s.json").strip() in ("true", "false")
