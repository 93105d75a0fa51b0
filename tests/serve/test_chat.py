"""Chat and completions over HTTP, asked for by the `openai` package: the same texts as the library writes."""

import json
import time

import httpx
import openai
import pytest

from rwkv_engine import Sampling

HELLO = [{"role": "user", "content": "Hello"}]
GREEDY = Sampling(temperature=0)


def text_of(model, prompt, **options):
    return "".join(step.text for step in model.generate(prompt, sampling=GREEDY, **options))


def test_an_answer_is_what_the_library_writes_behind_the_template(client, embedded):
    answer = client.chat.completions.create(model="small", messages=HELLO, temperature=0, max_tokens=30)
    choice = answer.choices[0]
    wanted = text_of(embedded, "User: Hello\n\nAssistant:", max_tokens=30, stop=("\n\nUser:", "\n\nSystem:"))
    assert choice.message.content == wanted.strip() and choice.finish_reason == "stop"
    assert answer.usage.prompt_tokens == len(embedded.tokenizer.encode("User: Hello\n\nAssistant:"))
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_stream_tells_the_same_and_its_usage_at_the_end(client):
    asks = {"model": "small", "messages": HELLO, "temperature": 0, "max_completion_tokens": 30}
    whole = client.chat.completions.create(**asks)
    chunks = list(client.chat.completions.create(**asks, stream=True, stream_options={"include_usage": True}))
    said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert said == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[-1].choices == []
    assert chunks[-2].choices[0].finish_reason == "stop" and chunks[-1].usage == whole.usage


def test_stop_seed_and_bias_do_what_they_say(client, embedded):
    asks = {"model": "small", "messages": [{"role": "user", "content": "Tell me a story."}], "max_tokens": 25}
    first, second = (client.chat.completions.create(**asks, seed=-5, temperature=1.5) for _ in range(2))
    assert first.choices[0].message.content == second.choices[0].message.content
    story = {"model": "small", "prompt": "Once upon a time", "max_tokens": 25, "temperature": 0}
    whole = client.completions.create(**story).choices[0].text
    cut = client.completions.create(**story, stop=[whole[8:12]]).choices[0]
    assert cut.text == whole[: whole.index(whole[8:12])] and cut.finish_reason == "stop"
    token = embedded.tokenizer.encode(" Hello")[0]
    other = client.chat.completions.create(
        model="small", messages=HELLO, temperature=0, max_tokens=5, logit_bias={str(token): -100}
    )
    assert "Hello" not in other.choices[0].message.content


def test_probabilities_are_those_of_the_library(client, embedded):
    answer = client.chat.completions.create(
        model="small", messages=HELLO, temperature=0, max_tokens=4, logprobs=True, top_logprobs=2
    )
    steps = list(
        embedded.generate("User: Hello\n\nAssistant:", sampling=GREEDY, max_tokens=4, alternatives=2)
    )
    told = answer.choices[0].logprobs.content
    assert [bytes(one.bytes) for one in told] == [embedded.tokenizer.token_bytes(s.token) for s in steps]
    assert [one.logprob for one in told] == pytest.approx([s.logprob for s in steps], abs=1e-4)
    assert all(len(one.top_logprobs) == 2 and one.top_logprobs[0].token == one.token for one in told)


def test_several_texts_of_one_prompt_are_those_of_their_seeds(client):
    asks = {"model": "small", "prompt": "Once upon a time", "max_tokens": 12, "temperature": 1.5}
    three = client.completions.create(**asks, n=3, seed=7)
    alone = [client.completions.create(**asks, seed=7 + i).choices[0].text for i in range(3)]
    assert [choice.text for choice in three.choices] == alone and len(set(alone)) > 1
    both = client.completions.create(**{**asks, "prompt": ["Once", "Tom"], "temperature": 0}, logprobs=1)
    assert [choice.index for choice in both.choices] == [0, 1]
    assert "".join(both.choices[1].logprobs.tokens) == both.choices[1].text


def test_json_has_the_form_that_was_asked_for(client):
    pytest.importorskip("llguidance")
    form = {"type": "json_object"}
    asks = {"model": "small", "messages": HELLO, "max_tokens": 60, "seed": 3}
    assert isinstance(
        json.loads(client.chat.completions.create(**asks, response_format=form).choices[0].message.content),
        dict,
    )
    schema = {
        "type": "object",
        "properties": {"age": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["age"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    found = json.loads(
        client.chat.completions.create(**asks, response_format=form).choices[0].message.content
    )
    assert set(found) == {"age"} and isinstance(found["age"], int)


def test_a_tool_that_must_be_called_is_called_and_its_result_is_read(client):
    pytest.importorskip("llguidance")
    parameters = {
        "type": "object",
        "properties": {"city": {"enum": ["Oslo", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    tool = {"type": "function", "function": {"name": "weather", "parameters": parameters}}
    asks = {"model": "small", "messages": HELLO, "tools": [tool], "tool_choice": "required", "max_tokens": 60}
    choice = client.chat.completions.create(**asks).choices[0]
    call = choice.message.tool_calls[0]
    assert choice.finish_reason == "tool_calls" and call.function.name == "weather"
    assert json.loads(call.function.arguments)["city"] in ("Oslo", "Rome")
    streamed = [
        c for c in client.chat.completions.create(**asks, stream=True) if c.choices[0].delta.tool_calls
    ]
    assert streamed[0].choices[0].delta.tool_calls[0].function.name == "weather"
    back = [*HELLO, choice.message.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": "12 C"}]
    assert (
        client.chat.completions.create(model="small", messages=back, max_tokens=5).choices[0].message.content
    )


def test_a_thought_is_told_apart_from_the_answer(client, monkeypatch):
    asks = {
        "model": "small",
        "messages": HELLO,
        "max_tokens": 6,
        "reasoning_effort": "high",
        "temperature": 0,
    }
    message = client.chat.completions.create(**asks).choices[0].message
    assert message.content == "" and message.reasoning_content
    streamed = [c.choices[0].delta for c in client.chat.completions.create(**asks, stream=True)]
    thought = "".join(getattr(delta, "reasoning_content", None) or "" for delta in streamed)
    assert thought.strip() == message.reasoning_content.strip()


@pytest.mark.parametrize(
    "more, kind, code, param",
    [
        ({"foo": 1}, openai.BadRequestError, "unknown_parameter", "foo"),
        ({"audio": {}}, openai.BadRequestError, "unsupported_parameter", "audio"),
        ({"temperature": 3}, openai.BadRequestError, "invalid_value", "temperature"),
        ({"temperature": "1"}, openai.BadRequestError, "invalid_type", "temperature"),
        ({"n": 100}, openai.BadRequestError, "invalid_value", "n"),
        ({"max_tokens": 10**9}, openai.BadRequestError, "invalid_value", "max_tokens"),
        ({"logit_bias": {"99999999": 1}}, openai.BadRequestError, "invalid_value", "logit_bias"),
        (
            {"messages": [{"role": "assistant", "content": "x"}]},
            openai.BadRequestError,
            "invalid_value",
            "messages",
        ),
        ({"model": "none"}, openai.NotFoundError, "model_not_found", "model"),
        ({"tool_choice": "required"}, openai.BadRequestError, "invalid_value", "tool_choice"),
        ({"state": "none"}, openai.NotFoundError, "not_found", "id"),
    ],
)
def test_what_cannot_be_done_is_refused_as_openai_refuses_it(client, more, kind, code, param):
    with pytest.raises(kind) as refused:
        client.post("/chat/completions", body={"model": "small", "messages": HELLO, **more}, cast_to=object)
    assert refused.value.code == code and refused.value.param == param and refused.value.body["message"]


def test_a_client_that_leaves_frees_its_place(address, served, embedded):
    server = served[0]
    asks = {
        "model": "small",
        "prompt": "Once",
        "max_tokens": 8000,
        "stream": True,
        "logit_bias": {str(end): -100 for end in embedded.tokenizer.ends},
    }
    with httpx.stream("POST", f"{address}/v1/completions", json=asks) as stream:
        pieces = stream.iter_bytes()  # held: without it, httpx would leave
        next(pieces)
        assert server.engine.running() == 1
    until = time.monotonic() + 5
    while server.engine.running() and time.monotonic() < until:
        time.sleep(0.01)
    assert server.engine.running() == 0 and server.waiting() == 0
