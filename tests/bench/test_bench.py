"""`rwkv bench`: figures that hang together, a report that survives its file, and what is said when something
is amiss.
"""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import models
import numpy as np
import pytest

from rwkv_engine import OptionError
from rwkv_engine.bench import Report, compared, measure, table
from rwkv_engine.bench.bandwidth import block, read_rates
from rwkv_engine.bench.report import COLUMNS, beside_one_another, markdown, markdown_table, shared, spread
from rwkv_engine.bench.sparsity import ffn_zeros
from rwkv_engine.checkpoints import open_checkpoint
from rwkv_engine.system import pages


@pytest.fixture(scope="module")
def report():
    return measure(threads=1, tokens=8, prompts=(5, 20), trials=2)


def test_figures_hang_together(report, embedded):
    assert report.decode > 0 and report.latency_p50 <= report.latency_p95
    assert report.read == pytest.approx(report.decode * embedded.weight_bytes / 1e9)
    assert report.bound == pytest.approx(report.bandwidth * 1e9 / embedded.weight_bytes)
    assert len(report.latencies) == 8 and len(report.decode_trials) == 2
    assert list(report.prefill) == ["5", "20"]
    assert len(report.ffn_zeros) == embedded.config.layers and all(
        0 <= share <= 1 for share in report.ffn_zeros
    )
    assert 0 < report.load < report.first_token
    assert report.machine["threads"] == 1 and report.model["format"] == "bf16"


@pytest.mark.skipif(not pages.peak(), reason="this system does not tell a process's memory")
def test_memory_is_of_the_process_that_ran_the_model(report, embedded):
    assert embedded.weight_bytes < report.private < report.peak < 1e9


def test_a_report_survives_its_file(report, tmp_path):
    (tmp_path / "r.json").write_text(report.json())
    assert Report.of_file(tmp_path / "r.json") == report


@pytest.mark.parametrize(
    ("text", "why"), [("{}", "not what"), ("nonsense", "not what"), (None, "No such file")]
)
def test_another_file_is_no_report(tmp_path, text, why):
    if text is not None:
        (tmp_path / "r.json").write_text(text)
    with pytest.raises(OptionError, match=why):
        Report.of_file(tmp_path / "r.json")


def test_a_report_of_another_version_is_refused(report, tmp_path):
    (tmp_path / "r.json").write_text(json.dumps({**json.loads(report.json()), "format": 99}))
    with pytest.raises(OptionError, match="version 99"):
        Report.of_file(tmp_path / "r.json")


def test_the_table_tells_noise_and_caches(report):
    quiet = dataclasses.replace(report, bandwidth=1e3, bandwidth_spread=0.01)
    assert "something else" not in table(quiet) and "caches" not in table(quiet)
    assert "something else" in table(dataclasses.replace(quiet, bandwidth_spread=0.5))
    assert "caches" in table(dataclasses.replace(quiet, bandwidth=1e-6))
    assert "unknown" in table(dataclasses.replace(quiet, peak=None))


def test_a_comparison_gives_the_ratio_and_says_which_is_better(report):
    report = dataclasses.replace(report, decode=100.0, decode_trials=[99.0, 101.0])
    half = dataclasses.replace(report, decode=50.0, load=report.load / 2)
    decode, load = (_line(compared(report, half), what) for what in ("decode", "load"))
    assert " 2.00 tokens/s" in decode and decode.endswith("better") and "±" in decode
    assert load.endswith("worse") and _line(compared(report, report), "decode").endswith("within the spread")


def test_a_comparison_marks_line_by_line_what_is_not_comparable(report):
    other = dataclasses.replace(
        report,
        machine={**report.machine, "threads": 7},
        model={**report.model, "format": "int8"},
        bandwidth_spread=0.5,
    )
    told = compared(dataclasses.replace(report, bandwidth_spread=0.01), other)
    assert "threads: 1 here, 7 there" in told and "weights: bf16 here, int8 there" in told
    assert _line(told, "decode").endswith("! threads, weights")
    assert _line(told, "memory bandwidth").endswith("! threads")
    assert _line(told, "weights read for").endswith("! weights")
    assert "!" not in _line(told, "state")
    # the notes of both runs
    assert told.count("something else was running") == 1 and told.count(report.energy) == 2
    assert "!" not in compared(report, report)


def test_a_report_to_paste_has_a_table_and_versions_and_no_names(report):
    named = dataclasses.replace(report, model={**report.model, "name": "secret-project.pth"})
    lines = markdown([named]).splitlines()
    assert [line[:1] for line in lines] == ["|", "|", "|", "", "r"]
    assert report.date in lines[-1] and "secret" not in markdown([named])


def test_trials_have_a_spread_and_old_reports_are_read(report, tmp_path):
    assert spread([1.0, 2.0, 4.0]) == 1.0 and spread([1.0]) is None
    assert [len(report.prefill_trials[length]) for length in report.prefill] == [2, 2]
    old = json.loads(report.json())
    del old["prefill_trials"], old["date"]
    (tmp_path / "r.json").write_text(json.dumps(old))
    assert "unknown" not in _line(compared(report, Report.of_file(tmp_path / "r.json")), "prompt of 5")


def _line(text, what):
    return next(line for line in text.splitlines() if line.startswith(what))


def test_energy_is_told_or_why_not(report):
    assert report.energy and (report.joules is None or report.joules > 0)
    assert report.energy in table(report)
    assert "0.50 J" in table(dataclasses.replace(report, joules=0.5, energy="a battery"))


def test_a_shared_report_names_neither_file_nor_release(report):
    named = dataclasses.replace(report, model={**report.model, "name": "secret-project.pth"})
    text = shared(named).json()
    assert (
        "secret" not in text and report.machine["system"] not in text and report.machine["processor"] in text
    )


def test_rows_of_a_table_have_its_columns_and_the_fastest_comes_first(report):
    lines = markdown_table(
        [dataclasses.replace(report, decode=5.0), dataclasses.replace(report, decode=50.0)]
    ).splitlines()
    assert {line.count("|") for line in lines} == {len(COLUMNS) + 1}
    assert " 50.0 " in lines[2] and " 5.00 " in lines[3]


@pytest.mark.slow
def test_zeros_are_counted_layer_by_layer(tmp_path):
    tensors = models.random_model("7")
    last = max(int(name.split(".")[1]) for name in tensors if name.startswith("blocks."))
    tensors[f"blocks.{last}.ffn.key.weight"] *= 0
    shares = ffn_zeros(
        open_checkpoint(models.write(tmp_path / "m.safetensors", tensors, "F32")), None, list(range(1, 40))
    )
    assert len(shares) == last + 1 and shares[last] == 1 and all(0.2 < share < 0.8 for share in shares[:last])


def test_bandwidth_reads_all_of_a_block():
    data = block(limit=40_000_000)
    assert data.nbytes <= 10_000_000
    quick, slow = (
        max(read_rates(1, np.ones(n, np.float32), 9)) * 1e9 / (4 * n) for n in (20_000_000, 80_000_000)
    )
    assert 2 < quick / slow < 8  # four times the bytes take about four times as long


def test_the_picture_is_a_png(report, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib (extra `plot`) is not installed")
    from rwkv_engine.bench.plot import plot

    two = dataclasses.replace(report, model={**report.model, "format": "int8"})
    for name, reports, dark in (("r.png", [report], False), ("dark.png", [report, two], True)):
        plot(reports, tmp_path / name, dark)
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    with pytest.raises(OptionError, match="No such file"):
        plot([report], tmp_path / "nowhere" / "r.png")


def test_the_example_in_the_documentation_is_what_its_script_makes(monkeypatch):
    docs = Path(__file__).parents[2] / "docs"
    monkeypatch.syspath_prepend(docs)
    import make_pictures

    assert (docs / "bench.md").read_text("utf-8") == make_pictures.page()
    assert all((docs / name).is_file() for name in ("bench.png", "bench-dark.png"))


def test_a_prompt_has_a_bound_of_its_own(report):
    from rwkv_engine.bench.plot import bound_of_prompt

    assert bound_of_prompt(report, 1) == report.bound
    assert bound_of_prompt(report, 64) == 64 * report.bound == bound_of_prompt(report, 128)
    assert bound_of_prompt(report, 65) == 65 / 2 * report.bound


def test_several_runs_stand_beside_one_another_and_in_one_file(report, tmp_path):
    two = dataclasses.replace(report, model={**report.model, "format": "int8"})
    rows = beside_one_another([report, two])
    assert {len(row) for row in rows} == {len(rows[0])} and [row[0] for row in rows[2:]] == ["bf16", "int8"]
    assert "±" in rows[2][2] and "±" in rows[2][3]
    (tmp_path / "two.json").write_text(f"[{report.json()}, {two.json()}]")
    assert Report.all_of_file(tmp_path / "two.json") == [report, two]
    with pytest.raises(OptionError, match="2 runs"):
        Report.of_file(tmp_path / "two.json")
    assert len(markdown([report, two]).splitlines()) == 6
    shown = subprocess.run(
        [sys.executable, Path(__file__).parents[2] / "benchmarks" / "results.py", tmp_path / "two.json"],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert shown.returncode == 0 and shown.stdout.count(" int8 ") == 1, shown.stderr


def test_lists_are_given_again_or_with_commas():
    from rwkv_engine_cli.bench import _each

    assert _each(["int8, int4", "f32", "int8"]) == ["int8", "int4", "f32"] and _each(None) == [None]


@pytest.mark.slow
def test_the_command_measures_each_format_with_each_number_of_threads(rwkv):
    few = ("--tokens", "2", "--prompt", "3", "--trials", "1")
    runs = json.loads(rwkv("bench", *few, "--weights", "bf16", "--threads", "1,2", "--json"))
    assert [run["machine"]["threads"] for run in runs] == [1, 2]
    for run in runs:
        assert run["model"]["parameters"] > 2e6 and run["model"]["file_bytes"] > 5e6
        assert run["date"] and run["prefill_trials"] == {"3": [run["prefill"]["3"]]}


@pytest.mark.parametrize(
    "wrong",
    [
        ["--trials", "0"],
        ["--tokens", "0"],
        ["--prompt", "0"],
        ["--compare", "nowhere.json"],
        ["no-model"],
        ["--json", "--markdown"],
        ["--threads", "1,two"],
        ["--plot", "picture.pdf"],
        ["--plot", "nowhere/picture.png"],
        ["--weights", "bf16,int8", "--compare", "x.json"],
    ],
)
def test_the_command_refuses_in_one_line(wrong):
    done = subprocess.run(
        [sys.executable, "-m", "rwkv_engine_cli.app", "bench", *wrong],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 2 and done.stderr.startswith("rwkv: ") and len(done.stderr.splitlines()) == 1
