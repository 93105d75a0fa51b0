"""kill -9, again and again: what was said to be kept is there, and whole."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import httpx
import pytest

pytestmark = pytest.mark.slow
PROGRAM = [sys.executable, "-m", "rwkv_engine_cli.app"]


def started(folder):
    """(a server, its address)"""
    program = subprocess.Popen(
        [*PROGRAM, "serve", "--port", "0", "--grace", "0.2"],
        env={**os.environ, "XDG_DATA_HOME": str(folder)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return program, program.stdout.readline().split()[3].rstrip(",")


def asking(address, kept, number):
    """Ask until the server is gone; what it said to have kept."""
    asks = {"model": "rwkv-embedded", "max_output_tokens": 10, "temperature": 0}
    while True:
        try:
            answer = httpx.post(
                f"{address}/v1/responses", json={**asks, "input": f"Hello {number}"}, timeout=30
            )
            kept[answer.json()["id"]] = answer.json()["output"]
        except httpx.HTTPError:
            return


def test_a_server_that_is_killed_has_every_state_that_it_said_to_have_and_all_whole(tmp_path, embedded):
    kept, rng = {}, random.Random(3)
    for _ in range(6):
        program, address = started(tmp_path)
        clients = [threading.Thread(target=asking, args=(address, kept, n)) for n in range(6)]
        for client in clients:
            client.start()
        enough = len(kept) + rng.randrange(3, 12)
        while len(kept) < enough:
            time.sleep(0.001)
        program.kill()
        program.communicate()
        for client in clients:
            client.join(60)
    states = list(tmp_path.rglob("*.safetensors"))
    assert len(kept) >= 18 and len(states) >= len(kept)
    for path in states:
        assert embedded.load_state(path).position > 0
    program, address = started(tmp_path)
    try:
        for id in rng.sample(sorted(kept), 12):
            assert httpx.get(f"{address}/v1/responses/{id}").json()["output"] == kept[id]
            asks = {
                "model": "rwkv-embedded",
                "input": "And?",
                "previous_response_id": id,
                "max_output_tokens": 2,
            }
            assert httpx.post(f"{address}/v1/responses", json=asks, timeout=30).status_code == 200
    finally:
        program.terminate()
        program.communicate(timeout=30)


def test_a_batch_that_is_killed_twenty_times_loses_and_repeats_no_line(tmp_path):
    (tmp_path / "in").write_text("\n".join(json.dumps(f"Once {n}") for n in range(700)))
    out, kills, rng = tmp_path / "out", 0, random.Random(5)
    while True:
        command = [*PROGRAM, "batch", str(tmp_path / "in"), str(out), "--max-tokens", "30"]
        program = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        if kills == 20:
            assert program.wait(300) == 0
            break
        size = out.stat().st_size if out.exists() else 0
        more = rng.randrange(1, 25_000)
        while program.poll() is None and (not out.exists() or out.stat().st_size < size + more):
            time.sleep(0.002)
        assert program.poll() is None, "it was to be killed before its end"
        os.kill(program.pid, signal.SIGKILL)
        program.wait()
        kills += 1
    ids = [json.loads(line)["custom_id"] for line in out.read_text().splitlines()]
    assert sorted(map(int, ids)) == list(range(1, 701))
