"""What a server refuses, and that nothing a client sends is an error of ours."""

import json
import random
import threading
import time

import httpx
import pytest

from rwkv_engine.errors import OptionError
from rwkv_engine.serve.planning import Limits
from rwkv_engine.serve.security import need_key

ASKS = {"model": "small", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3}


def until(true):
    """Wait for it."""
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_key_is_needed_where_others_can_reach_the_server():
    need_key("127.0.0.1", [], False)
    need_key("0.0.0.0", ["long-enough"], False)
    need_key("0.0.0.0", [], True)
    for host, keys, no_key in (("0.0.0.0", [], False), ("::", [], False), ("x", ["short"], False)):
        with pytest.raises(OptionError):
            need_key(host, keys, no_key)


def test_only_a_right_key_and_our_own_pages_come_in(embedded, serve):
    with serve(embedded, keys=("key-of-one", "key-of-two"), origins=("https://good.example",)) as (
        _,
        address,
    ):
        path = f"{address}/v1/chat/completions"
        right = {"authorization": "Bearer key-of-one"}
        assert httpx.post(path, json=ASKS).status_code == 401
        assert httpx.post(path, json=ASKS, headers={"authorization": "Bearer key-of-"}).status_code == 401
        assert httpx.post(path, json=ASKS, headers=right).status_code == 200
        assert httpx.get(f"{address}/health").status_code == 200
        for origin, status in (("https://bad.example", 403), ("https://good.example", 200), (address, 200)):
            assert httpx.post(path, json=ASKS, headers={**right, "origin": origin}).status_code == status
        assert httpx.get(f"{address}/v1/models", headers={**right, "host": "evil.example"}).status_code == 403


def test_too_much_is_refused_with_the_status_that_says_so(embedded, serve):
    limits = Limits(body=2000, prompt=50, tokens=100_000, queue=1, sequences=1)
    with serve(embedded, limits=limits) as (server, address):
        path = f"{address}/v1/completions"
        assert httpx.post(path, content=b"x" * 3000).status_code == 413
        assert httpx.post(path, content=(b"x" * 500 for _ in range(9))).status_code == 413
        long = {"model": "small", "prompt": [1] * 60}
        assert httpx.post(path, json=long).json()["error"]["code"] == "context_length_exceeded"
        forever = {
            "model": "small",
            "prompt": "Once",
            "max_tokens": 50_000,
            "logit_bias": {str(end): -100 for end in embedded.tokenizer.ends},
            "stream": True,
        }
        with httpx.stream("POST", path, json=forever) as one:
            pieces = one.iter_bytes()  # held: without it, httpx would leave
            next(pieces)
            waits = threading.Thread(
                target=lambda: httpx.post(path, json={**forever, "max_tokens": 1}, timeout=60)
            )
            waits.start()
            until(lambda: len(server._under_way) == 2)
            refused = httpx.post(path, json=forever)
            assert refused.status_code == 429 and int(refused.headers["retry-after"]) > 0
        waits.join(60)


def test_a_request_ends_when_its_time_is_over(embedded, serve):
    with serve(embedded, limits=Limits(seconds=0.3, tokens=10**6)) as (_, address):
        asks = {
            "model": "small",
            "prompt": "Once",
            "max_tokens": 10**6,
            "logit_bias": {str(end): -100 for end in embedded.tokenizer.ends},
        }
        answer = httpx.post(f"{address}/v1/completions", json=asks, timeout=20).json()
        assert answer["choices"][0]["finish_reason"] == "length" and answer["choices"][0]["text"]


def test_when_a_server_is_stopped_each_stream_gets_a_last_event(embedded, serve):
    asks = {
        "model": "small",
        "prompt": "Once",
        "max_tokens": 8000,
        "logit_bias": {str(end): -100 for end in embedded.tokenizer.ends},
        "stream": True,
    }
    ends = []

    def read(address):
        with httpx.stream("POST", f"{address}/v1/completions", json=asks, timeout=60) as stream:
            ends.append([line for line in stream.iter_lines() if line][-2:])

    with serve(embedded, grace=0.2) as (server, address):
        readers = [threading.Thread(target=read, args=(address,)) for _ in range(4)]
        for reader in readers:
            reader.start()
        until(lambda: server.engine.running() == 4)
    for reader in readers:
        reader.join(30)
    assert len(ends) == 4
    assert all("shutting_down" in error and done == "data: [DONE]" for error, done in ends)


ODD = [None, True, -1, 0, 1e308, "", "x", "\ud800", [], {}, [[]], [None], {"a": {}}, 2**70, "9" * 400]


def test_no_malformed_request_is_a_mistake_of_the_servers(address):
    rng = random.Random(5)
    bodies = [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"model": "small", "model": 1}', b"[" * 100_000]
    fields = "messages prompt temperature stop n logit_bias tools tool_choice response_format stream seed state input"
    paths = ["chat/completions", "completions", *MORE]
    with httpx.Client(timeout=60) as client:
        for body in bodies:
            for path in paths:
                assert 400 <= client.post(f"{address}/v1/{path}", content=body).status_code < 500
        for _ in range(200):
            asks = {
                **ASKS,
                **{name: rng.choice(ODD) for name in rng.sample(fields.split(), rng.randint(1, 3))},
            }
            answer = client.post(f"{address}/v1/{rng.choice(paths)}", content=json.dumps(asks).encode())
            assert answer.status_code < 500, (asks, answer.text)
        for method, path in (
            ("GET", "/v1/chat/completions"),
            ("GET", "/nothing"),
            ("DELETE", "/v1/models/x"),
        ):
            assert client.request(method, f"{address}{path}").json()["error"]["message"]


MORE = ["responses", "states", "tokenize", "embeddings"]


@pytest.mark.parametrize(
    "options",
    [
        ("--host", "0.0.0.0"),
        ("--host", "no-such-host.invalid", "--no-key"),
        ("-m", "a=x.pth", "-m", "a=y.pth"),
        ("--api-key-file", "/nonexistent"),
        ("--ram", "x"),
        ("-m", "no-such-model"),
    ],
)
def test_a_server_that_cannot_be_is_refused_in_one_sentence(rwkv, monkeypatch, options):
    monkeypatch.delenv("RWKV_API_KEY", raising=False)
    rwkv("serve", "--port", "0", *options, status=2)
