"""Responses, states, tokens and vectors over HTTP: a conversation goes on from its state, and only the new
turn is read.
"""

import json

import httpx
import numpy as np
import openai
import pytest

from rwkv_engine import Sampling
from rwkv_engine.serve.keeping import Keeper, Kept


def ask(client, text, **more):
    return client.responses.create(
        model="small", input=text, temperature=0, **{"max_output_tokens": 30, **more}
    )


def test_a_response_goes_on_from_the_one_before_and_reads_only_what_is_new(client, embedded):
    first = ask(client, "Tom has a red ball.", instructions="Be brief.")
    second = ask(client, "Who has the ball?", previous_response_id=first.id)
    turn = embedded.tokenizer.encode("\n\nUser: Who has the ball?\n\nAssistant:")
    assert second.usage.input_tokens == len(turn) < first.usage.input_tokens
    whole = (
        "System: Be brief.\n\nUser: Tom has a red ball.\n\nAssistant: "
        f"{first.output_text}\n\nUser: Who has the ball?\n\nAssistant:"
    )
    steps = embedded.generate(whole, sampling=Sampling(temperature=0), max_tokens=30, stop=("\n\nUser:",))
    assert second.output_text == "".join(step.text for step in steps).strip()
    again = ask(client, "Who has the ball?", previous_response_id=first.id)
    assert again.output_text == second.output_text, "what goes on from a response leaves it as it was"


def test_the_events_of_a_stream_make_the_same_response(client):
    whole = ask(client, "Hello")
    events = list(ask(client, "Hello", stream=True))
    assert events[0].type == "response.created" and events[-1].type == "response.completed"
    said = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert said == whole.output_text == events[-1].response.output_text
    assert [event.sequence_number for event in events] == list(range(len(events)))


def test_a_thought_is_no_part_of_what_goes_on(client, embedded):
    first = ask(client, "Hello", reasoning={"effort": "low"}, max_output_tokens=8)
    second = ask(client, "Hello", previous_response_id=first.id)
    plain = embedded.tokenizer.encode("User: Hello\n\nAssistant:")
    assert second.usage.input_tokens == len(plain) + len(
        embedded.tokenizer.encode("\n\nUser: Hello\n\nAssistant:")
    )


def test_a_conversation_survives_a_restart_and_store_false_is_honoured(embedded, serve, tmp_path):
    texts = []
    for _ in range(2):
        with (
            serve(embedded, folder=tmp_path) as (_, address),
            openai.OpenAI(base_url=f"{address}/v1", api_key="x", max_retries=0) as client,
        ):
            if not texts:
                id = ask(client, "Tom has a red ball.").id
                gone = ask(client, "Hello", store=False).id
            texts.append(ask(client, "Who has the ball?", previous_response_id=id).output_text)
            with pytest.raises(openai.NotFoundError):
                ask(client, "Hello", previous_response_id=gone)
            assert client.responses.retrieve(id).id == id
            with pytest.raises(openai.NotFoundError):
                client.responses.retrieve(gone)
    assert texts[0] == texts[1] and texts[0]


def test_a_state_is_read_from_disk_once(embedded, tmp_path):
    state = embedded.new_state()
    embedded.skim([1, 2, 3], state)
    Keeper(tmp_path, 1 << 20, 1 << 30).put("me", "resp_1", Kept(state, (), "it"))
    later = Keeper(tmp_path, 1 << 20, 1 << 30)
    assert later.get("me", "resp_1", embedded, "it").state == state
    for path in tmp_path.rglob("*.safetensors"):
        path.unlink()
    assert later.get("me", "resp_1", embedded, "it").state == state


def test_a_state_is_saved_listed_forked_fetched_put_back_and_deleted(client, address, embedded, tmp_path):
    first = ask(client, "Tom has a red ball.")
    with httpx.Client(base_url=f"{address}/v1", timeout=60) as web:
        saved = web.post("/states", json={"model": "small", "source": first.id, "id": "mine"}).json()
        assert saved["id"] == "state_mine"
        fork = web.post("/states", json={"model": "small", "source": "state_mine"}).json()["id"]
        assert {"state_mine", fork} <= {one["id"] for one in web.get("/states").json()["data"]}
        data = web.get("/states/state_mine").content
        (tmp_path / "s").write_bytes(data)
        assert embedded.load_state(tmp_path / "s").position > 5
        assert web.put("/states/state_other?model=small", content=data).status_code == 200
        said = [
            web.post(
                "/chat/completions",
                json={
                    "model": "small",
                    "messages": [{"role": "user", "content": "Who has the ball?"}],
                    "state": id,
                    "temperature": 0,
                },
            ).json()["choices"][0]["message"]["content"]
            for id in ("state_mine", fork, "state_other")
        ]
        assert len(set(said)) == 1 and "Tom" in said[0]
        assert web.delete("/states/state_mine").json()["deleted"]
        assert web.get("/states/state_mine").status_code == 404
        assert web.put("/states/bad?model=small", content=data[:-1]).status_code == 400
        other = data.replace(embedded.fingerprint.encode(), b"0" * len(embedded.fingerprint))
        refused = web.put("/states/bad?model=small", content=other)
        assert refused.status_code == 400 and "another model" in refused.json()["error"]["message"]
        assert web.get("/states/..%2f..%2fetc").status_code == 404


def test_what_one_key_keeps_another_does_not_see(embedded, serve, tmp_path):
    with serve(embedded, keys=("key-of-one", "key-of-two"), folder=tmp_path) as (_, address):
        one, two = (
            httpx.Client(base_url=f"{address}/v1", headers={"authorization": f"Bearer {key}"}, timeout=60)
            for key in ("key-of-one", "key-of-two")
        )
        with one, two:
            id = one.post("/responses", json={"model": "small", "input": "Hello"}).json()["id"]
            assert one.get(f"/responses/{id}").status_code == 200
            assert two.get(f"/responses/{id}").status_code == 404
            asks = {"model": "small", "input": "Hi", "previous_response_id": id}
            assert two.post("/responses", json=asks).status_code == 404
            assert two.post("/states", json={"model": "small", "source": id}).status_code == 404
            assert one.post("/states", json={"model": "small", "source": id}).status_code == 200
            assert two.get("/states").json()["data"] == []


def test_tokens_and_vectors_are_the_models(client, address, embedded):
    told = httpx.post(f"{address}/v1/tokenize", json={"model": "small", "input": "Tom has a ball."}).json()
    ids = embedded.tokenizer.encode("Tom has a ball.")
    assert told["data"][0]["tokens"] == ids and told["count"] == len(ids)
    found = client.embeddings.create(model="small", input=["Tom has a ball.", "Hello"])
    _, hidden = embedded.feed_hidden(ids, embedded.new_state(), every=True)
    mean = hidden.mean(axis=0)
    assert np.allclose(found.data[0].embedding, mean / np.linalg.norm(mean), atol=1e-5)


def test_metrics_count_what_was_done(address, client):
    ask(client, "Hello")
    text = httpx.get(f"{address}/metrics").text
    assert 'rwkv_requests_total{path="/v1/responses",status="200"}' in text
    assert "rwkv_tokens_total" in text and "rwkv_running 0.0" in text


def test_the_least_recently_used_model_goes_where_memory_runs_short(embedded, serve, load):
    with serve(embedded, sources={"a": None, "b": None, "c": None}, ram=2) as (server, address):
        for name in ("a", "b", "a", "c"):
            asks = {"model": name, "prompt": "Once", "max_tokens": 1}
            assert httpx.post(f"{address}/v1/completions", json=asks, timeout=60).status_code == 200
        assert set(server.pool.loaded()) == {"a", "c"}


def test_programs_that_speak_ollamas_protocol_get_the_same_text(address, client):
    asks = {"model": "small:latest", "options": {"temperature": 0, "num_predict": 30}}
    messages = [{"role": "user", "content": "Hello"}]
    wanted = client.chat.completions.create(model="small", messages=messages, temperature=0, max_tokens=30)
    said = wanted.choices[0].message.content
    whole = httpx.post(f"{address}/api/chat", json={**asks, "messages": messages, "stream": False}).json()
    assert whole["message"]["content"] == said and whole["done"]
    lines = httpx.post(f"{address}/api/generate", json={**asks, "prompt": "Hello"}).text.splitlines()
    assert "".join(json.loads(line)["response"] for line in lines) == said
    assert json.loads(lines[-1])["done_reason"] == "stop"
    assert httpx.get(f"{address}/api/tags").json()["models"][0]["name"] == "small"
