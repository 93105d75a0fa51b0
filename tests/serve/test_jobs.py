"""`rwkv batch`: each request is answered once, whatever kills a run."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from rwkv_engine import Sampling

PROGRAM = [sys.executable, "-m", "rwkv_engine_cli.app", "batch"]


def answers(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_requests_of_every_form_are_answered_as_the_library_does(rwkv, tmp_path, embedded):
    chat = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "temperature": 0}
    lines = [
        {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": chat},
        {"id": "b", "prompt": "Once upon a time"},
        "Tom has",
        {"custom_id": "bad", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": []}},
        {"custom_id": "no", "method": "POST", "url": "/v1/images", "body": {}},
    ]
    (tmp_path / "in").write_text("\n".join(map(json.dumps, lines)))
    rwkv("batch", tmp_path / "in", tmp_path / "out", "--max-tokens", 9, "--temperature", 0)
    found = {line["custom_id"]: line for line in answers(tmp_path / "out")}
    assert set(found) == {"a", "b", "3", "bad", "no"}
    assert found["a"]["response"]["body"]["choices"][0]["message"]["content"].startswith("Hello")
    steps = embedded.generate("Once upon a time", sampling=Sampling(temperature=0), max_tokens=9)
    assert found["b"]["response"]["body"]["choices"][0]["text"] == "".join(step.text for step in steps)
    assert found["bad"]["response"]["status_code"] == 400 and found["no"]["response"]["status_code"] == 404


@pytest.mark.parametrize("text", ["{", "3", '{"id": 1, "prompt": "x"}\n{"id": 1, "prompt": "y"}'])
def test_a_file_that_is_wrong_is_refused_before_anything_is_written(rwkv, tmp_path, text):
    (tmp_path / "in").write_text(text)
    rwkv("batch", tmp_path / "in", tmp_path / "out", status=2)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_loses_and_repeats_no_line(tmp_path):
    (tmp_path / "in").write_text("\n".join(json.dumps(f"Once {n}") for n in range(400)))
    out, kills = tmp_path / "out", 0
    while True:
        program = subprocess.Popen(
            [*PROGRAM, str(tmp_path / "in"), str(out), "--max-tokens", "40"], stderr=subprocess.DEVNULL
        )
        size = out.stat().st_size if out.exists() else 0
        while program.poll() is None and (not out.exists() or out.stat().st_size < size + 20_000):
            time.sleep(0.005)
        if program.poll() is not None or kills == 3:
            program.wait(120)
            break
        os.kill(program.pid, signal.SIGKILL)
        program.wait()
        kills += 1
        with out.open("ab") as file:
            file.write(b'{"id": "half a li')
    ids = [line["custom_id"] for line in answers(out)]
    assert kills >= 2 and sorted(map(int, ids)) == list(range(1, 401))
