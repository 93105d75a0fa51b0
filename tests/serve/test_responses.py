"""/v1/responses as the `openai` package uses it: tools, forms of an answer, and every event of a stream."""

import json

import openai
import pydantic
import pytest

pytest.importorskip("llguidance")

PARAMETERS = {
    "type": "object",
    "properties": {"city": {"enum": ["Oslo", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "name": "weather", "description": "The weather", "parameters": PARAMETERS}
ASKS = {"model": "small", "input": "Hello", "max_output_tokens": 60, "temperature": 0}


class Person(pydantic.BaseModel):
    age: int
    name: str = pydantic.Field(max_length=5)


def plain(item):
    """What a server sent of an item."""
    return item.model_dump(exclude_none=True)


def test_a_tool_that_must_be_called_is_called(client):
    answer = client.responses.create(**ASKS, tools=[TOOL], tool_choice="required")
    (call,) = answer.output
    assert answer.status == "completed" and call.type == "function_call" and call.name == "weather"
    assert json.loads(call.arguments)["city"] in ("Oslo", "Rome")
    assert answer.tools[0].name == "weather" and answer.tool_choice == "required"
    named = client.responses.create(**ASKS, tools=[TOOL], tool_choice={"type": "function", "name": "weather"})
    assert named.output[0].arguments == call.arguments


def test_the_result_of_a_call_is_read_with_the_whole_history_or_behind_the_state(client, embedded):
    first = client.responses.create(**ASKS, tools=[TOOL], tool_choice="required")
    call = first.output[0]
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "12 degrees"}
    asks = {**ASKS, "tools": [TOOL], "max_output_tokens": 8}
    behind = client.responses.create(**{**asks, "input": [result]}, previous_response_id=first.id)
    turn = "\n```\n\nUser: Function output: 12 degrees\n\nAssistant:"
    assert behind.usage.input_tokens <= len(embedded.tokenizer.encode(turn)) + 1
    history = [{"role": "user", "content": "Hello"}, *first.output, result]
    whole = client.responses.create(**{**asks, "input": history})
    assert whole.usage.input_tokens > behind.usage.input_tokens
    assert whole.output[0].type in ("message", "function_call")


def test_tools_that_come_later_are_told_of_once(client, embedded):
    first = client.responses.create(**ASKS)
    counts = []
    for tools in ([], [TOOL], [TOOL], [{**TOOL, "name": "other"}]):
        first = client.responses.create(
            **{**ASKS, "max_output_tokens": 2}, tools=tools, previous_response_id=first.id
        )
        counts.append(first.usage.input_tokens)
    told = len(embedded.tokenizer.encode(json.dumps(PARAMETERS)))
    assert counts[1] > counts[0] + told and counts[2] == counts[0] and counts[3] > counts[0] + told


def test_an_answer_has_the_form_that_was_asked_for(client):
    found = client.responses.parse(**ASKS, text_format=Person)
    assert isinstance(found.output_parsed, Person) and found.text.format.type == "json_schema"
    plain = client.responses.create(**ASKS, text={"format": {"type": "json_object"}})
    assert plain.status == "incomplete" or isinstance(json.loads(plain.output_text), dict)


@pytest.mark.parametrize(
    "more, kinds",
    [
        ({}, ["message"]),
        ({"tools": [TOOL], "tool_choice": "required"}, ["function_call"]),
        ({"reasoning": {"effort": "low"}, "max_output_tokens": 6}, ["reasoning", "message"]),
        ({"text": {"format": {"type": "json_schema", "name": "p", "schema": Person.model_json_schema()}}}, ["message"]),
    ],
    ids=["message", "call", "thought", "form"],
)  # fmt: skip
def test_the_events_are_what_the_openai_package_builds_the_answer_from(client, more, kinds):
    whole = client.responses.create(**{**ASKS, **more})
    with client.responses.stream(**{**ASKS, **more}) as stream:
        events = list(stream)
    last = events[-1].response
    assert [item.type for item in whole.output] == [item.type for item in last.output] == kinds
    assert last.output_text == whole.output_text and last.usage.output_tokens == whole.usage.output_tokens
    assert [event.sequence_number for event in events] == list(range(len(events)))
    opened = [(e.output_index, e.item.id) for e in events if e.type == "response.output_item.added"]
    closed = [(e.output_index, e.item.id) for e in events if e.type == "response.output_item.done"]
    assert opened == closed == [(at, item.id) for at, item in enumerate(last.output)]
    done = [e.item for e in events if e.type == "response.output_item.done"]
    assert [plain(item) for item in done] == [plain(item) for item in last.output]
    for name, field in (
        ("output_text", "text"),
        ("reasoning_text", "text"),
        ("function_call_arguments", "arguments"),
    ):
        told = "".join(e.delta for e in events if e.type == f"response.{name}.delta")
        assert told == "".join(getattr(e, field) for e in events if e.type == f"response.{name}.done")


@pytest.mark.parametrize(
    "items, param",
    [
        ([{"type": "image", "role": "user", "content": "x"}], "input.0"),
        ([{"type": "function_call", "name": "x"}], "input.0.arguments"),
        ([{"role": "user", "content": [{"type": "input_image"}]}], "input.0.content"),
        ([{"type": "reasoning", "summary": []}], "messages"),
        ([3], "input.0"),
    ],
)
def test_an_item_that_cannot_be_read_is_refused_with_its_place(client, items, param):
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model="small", input=items)
    assert refused.value.param.startswith(param) and refused.value.body["message"]
