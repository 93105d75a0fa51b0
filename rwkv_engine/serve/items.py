"""The body of /v1/responses, and what it means as a chat completion."""

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag
from pydantic.dataclasses import dataclass

from rwkv_engine.serve.requests import (
    EXACT,
    Called,
    Chat,
    Choice,
    Count,
    Effort,
    Form,
    Function,
    FunctionName,
    Named,
    Said,
    Schema,
    Share,
    Temperature,
    TextPart,
    Tool,
    ToolCall,
)


@dataclass(frozen=True, slots=True, config=EXACT)
class Item:
    """A message of the input. What an answer of this server holds may come back in it."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    type: Literal["message"] = "message"
    id: str | None = None
    status: str | None = None
    phase: None = None


@dataclass(frozen=True, slots=True, config=EXACT)
class CallItem:
    """A call of a function, as an answer of this server holds it."""

    type: Literal["function_call"]
    name: str
    arguments: str
    call_id: str
    id: str | None = None
    status: str | None = None
    namespace: None = None
    parsed_arguments: Any = None


@dataclass(frozen=True, slots=True, config=EXACT)
class OutputItem:
    """What a function that was called gave back."""

    type: Literal["function_call_output"]
    call_id: str
    output: str | list[TextPart]
    id: str | None = None
    status: str | None = None


@dataclass(frozen=True, slots=True, config=EXACT)
class ThoughtItem:
    """A thought of an earlier answer. It may come back; it is no part of the history."""

    type: Literal["reasoning"]
    summary: list[Any]
    id: str | None = None
    content: list[Any] | None = None
    encrypted_content: None = None
    status: str | None = None


def _kind(value: Any) -> str | None:
    """Which item a value is: it says so, and is a message where it says nothing."""
    kind = value.get("type", "message") if isinstance(value, dict) else getattr(value, "type", None)
    return f"item-{kind}"


AnyItem = Annotated[
    Annotated[Item, Tag("item-message")]
    | Annotated[CallItem, Tag("item-function_call")]
    | Annotated[OutputItem, Tag("item-function_call_output")]
    | Annotated[ThoughtItem, Tag("item-reasoning")],
    Discriminator(_kind),
]


@dataclass(frozen=True, slots=True, config=EXACT)
class FunctionTool:
    """A function that may be called."""

    name: FunctionName
    type: Literal["function"]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


@dataclass(frozen=True, slots=True, config=EXACT)
class FunctionChoice:
    """The function that has to be called."""

    name: str
    type: Literal["function"]


@dataclass(frozen=True, slots=True, config=EXACT)
class Reasoning:
    """How much is thought."""

    effort: Effort | None = None
    summary: None = None


@dataclass(frozen=True, slots=True, config=EXACT)
class TextForm:
    """What the answer has to look like."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


@dataclass(frozen=True, slots=True, config=EXACT)
class TextOptions:
    """How the answer is written."""

    format: TextForm | None = None


@dataclass(frozen=True, slots=True, config=EXACT)
class Ask:
    """The body of /v1/responses."""

    model: str
    input: str | Annotated[list[AnyItem], Field(min_length=1)]
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    stream: bool | None = None
    temperature: Temperature = None
    top_p: Share = None
    max_output_tokens: Count = None
    reasoning: Reasoning | None = None
    text: TextOptions | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | FunctionChoice | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    parallel_tool_calls: bool | None = None
    truncation: Literal["disabled"] | None = None
    service_tier: Literal["auto", "default"] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None


def as_chat(asks: Ask) -> Chat:
    """The same request as one for a chat completion."""
    told = [Said("system", asks.instructions)] if asks.instructions else []
    form, wanted = None, asks.text.format if asks.text else None
    if wanted is not None:
        schema = Schema(wanted.name or "answer", wanted.schema) if wanted.type == "json_schema" else None
        form = Form(wanted.type, schema)
    choice = asks.tool_choice
    tools = [Tool(Function(f.name, f.description, f.parameters, f.strict)) for f in asks.tools or ()]
    return Chat(
        model=asks.model,
        messages=[*told, *messages_of(asks.input)],
        temperature=asks.temperature,
        top_p=asks.top_p,
        max_completion_tokens=asks.max_output_tokens,
        reasoning_effort=asks.reasoning.effort if asks.reasoning else None,
        response_format=form,
        tools=tools or None,
        tool_choice=Choice(Named(choice.name)) if isinstance(choice, FunctionChoice) else choice,
    )


def messages_of(items: str | list[Any]) -> list[Said]:
    """The items of an input as messages: calls belong to the assistant's message before them."""
    if isinstance(items, str):
        return [Said("user", items)]
    found: list[Said] = []
    for item in items:
        if isinstance(item, Item):
            found.append(Said(item.role, item.content))
        elif isinstance(item, OutputItem):
            found.append(Said("tool", item.output, tool_call_id=item.call_id))
        elif isinstance(item, CallItem):
            if not found or found[-1].role != "assistant":
                found.append(Said("assistant"))
            call = ToolCall(Called(item.name, item.arguments), item.call_id)
            found[-1] = replace(found[-1], tool_calls=[*(found[-1].tool_calls or ()), call])
    return found
