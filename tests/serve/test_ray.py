"""Batches and the server on a Ray cluster of several nodes, one of which dies."""

import json
import os
import socket
import subprocess
import sys
import time

import pytest

ray = pytest.importorskip("ray")
pytest.importorskip("ray.data")
pytest.importorskip("ray.serve")
openai = pytest.importorskip("openai")
from ray.cluster_utils import Cluster  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
PROGRAM = [sys.executable, "-m", "rwkv_engine_cli.app", "batch"]


@pytest.fixture
def cluster():
    """(the cluster, its two nodes besides the head): one core each."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        yield made, [made.add_node(num_cpus=1) for _ in range(2)]
    finally:
        ray.shutdown()
        made.shutdown()


def test_a_node_that_dies_in_the_middle_of_a_batch_loses_and_repeats_no_line(cluster, tmp_path):
    made, nodes = cluster
    lines = [{"id": f"n{n}", "prompt": f"Once {n}"} for n in range(600)]
    (tmp_path / "in").write_text("\n".join(map(json.dumps, lines)))
    out = tmp_path / "out"
    options = ["--ray", "--max-tokens", "60", "--max-sequences", "4", "--seed", "1"]
    program = subprocess.Popen(
        [*PROGRAM, str(tmp_path / "in"), str(out), *options],
        env={**os.environ, "RAY_ADDRESS": made.address}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not out.exists() or out.read_bytes().count(b"\n") < 30:
        assert program.poll() is None, program.stderr.read()
        time.sleep(0.01)
    made.remove_node(nodes[0], allow_graceful=False)
    assert out.read_bytes().count(b"\n") < 550, "the node has to die in the middle"
    said = program.communicate(timeout=200)[1]
    assert program.returncode == 0, said
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted(line["custom_id"] for line in found) == sorted(line["id"] for line in lines)
    assert all(line["response"]["status_code"] == 200 for line in found)
    # the same texts as without Ray
    (tmp_path / "few").write_text("\n".join(map(json.dumps, lines[:20])))
    subprocess.run([*PROGRAM, str(tmp_path / "few"), str(tmp_path / "alone"), *options[1:]], check=True)
    texts = {line["custom_id"]: line["response"]["body"]["choices"][0]["text"] for line in found}
    for line in map(json.loads, (tmp_path / "alone").read_text().splitlines()):
        assert texts[line["custom_id"]] == line["response"]["body"]["choices"][0]["text"]


def test_a_conversation_stays_at_its_replica_and_moves_when_that_dies(cluster, monkeypatch):
    from ray import serve

    from rwkv_engine.serve.ray import app

    made, nodes = cluster
    monkeypatch.delenv("RWKV_API_KEY", raising=False)
    ray.init(made.address, log_to_driver=False)
    port = _port()
    serve.start(http_options={"port": port, "location": "HeadOnly"})
    serve.run(app({"name": "small", "replicas": "2"}))
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="x", max_retries=5, timeout=60)

    def ask(text, **more):
        got = client.responses.with_raw_response.create(
            model="small", input=text, temperature=0, max_output_tokens=20, **more
        )
        return got.headers["x-rwkv-replica"], got.parse()

    begun = [ask(f"Tom has {n} balls.") for n in range(8)]
    assert len({at for at, _ in begun}) == 2, "both replicas answer"
    texts = {}
    for at, first in begun:
        where, second = ask("Who has the balls?", previous_response_id=first.id)
        assert where == at, "a conversation goes on where its state is"
        assert second.usage.input_tokens < 20
        texts[first.id] = second.output_text
    events = list(client.responses.create(model="small", input="Hello", stream=True, max_output_tokens=20))
    assert events[0].type == "response.created" and events[-1].response.output_text
    made.remove_node(nodes[0], allow_graceful=False)  # and with it one of the replicas: a node has one core
    dead = set()
    for at, first in begun:
        where, again = ask("Who has the balls?", previous_response_id=first.id)
        dead |= {at} if where != at else set()
        assert again.output_text == texts[first.id], "the state came from the object store"
    assert len(dead) == 1
    serve.shutdown()


def _port():
    """A port that is free now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]
