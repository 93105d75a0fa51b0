"""What may be asked: the bodies of requests, field by field, as pydantic checks them.

Nothing is ever left out silently.
"""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from rwkv_engine.errors import brief
from rwkv_engine.serve.problems import Problem
from rwkv_engine.system.json_text import require_modest

T = TypeVar("T")
EXACT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
#: fields that OpenAI's API has and this server cannot do
UNSUPPORTED = frozenset(
    "audio background conversation echo function_call functions include max_tool_calls moderation prediction prompt "
    "suffix text_format top_p_decay truncation verbosity web_search_options image_url input_audio file images keep_alive "
    "best_of context template raw format".split()
)
#: kinds of a union by name, in pydantic's places of errors
BRANCHES = frozenset({"str", "int", "TextPart", "Choice", "FunctionChoice"})
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]


@dataclass(frozen=True, slots=True, config=EXACT)
class TextPart:
    """A part of a message."""

    text: str
    type: Literal["text", "input_text", "output_text", "refusal"] = "text"
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


@dataclass(frozen=True, slots=True, config=EXACT)
class Called:
    """A function as the model called it."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True, config=EXACT)
class ToolCall:
    """A call in an assistant's message."""

    function: Called
    id: str = ""
    type: Literal["function"] = "function"
    index: int | None = None


@dataclass(frozen=True, slots=True, config=EXACT)
class Said:
    """A message. What an answer of this server holds may come back in it."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    annotations: list[Any] | None = None
    audio: None = None
    function_call: None = None
    parsed: Any = None


FunctionName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


@dataclass(frozen=True, slots=True, config=EXACT)
class Function:
    """A function that may be called."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


@dataclass(frozen=True, slots=True, config=EXACT)
class Tool:
    """A tool: only functions."""

    function: Function
    type: Literal["function"] = "function"


@dataclass(frozen=True, slots=True, config=EXACT)
class Named:
    """A function by its name."""

    name: str


@dataclass(frozen=True, slots=True, config=EXACT)
class Choice:
    """The function that has to be called."""

    function: Named
    type: Literal["function"] = "function"


@dataclass(frozen=True, slots=True, config=EXACT)
class StreamOptions:
    """How a stream is told."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


@dataclass(frozen=True, slots=True, config=EXACT)
class Schema:
    """A JSON schema and its name."""

    name: str = "answer"
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


@dataclass(frozen=True, slots=True, config=EXACT)
class Form:
    """What an answer has to look like."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: Schema | None = None


Stop = str | list[str] | None
Temperature = Annotated[float | None, Field(ge=0, le=2)]
Share = Annotated[float | None, Field(ge=0, le=1)]
Penalty = Annotated[float | None, Field(ge=-2, le=2)]
Count = Annotated[int | None, Field(ge=1)]
Whole = Annotated[int | None, Field(ge=0)]
Seed = Annotated[int | None, Field(ge=-(1 << 63), lt=1 << 63)]
Texts = Annotated[int | None, Field(ge=1, le=128)]
Tops = Annotated[int | None, Field(ge=0, le=20)]
StateId = Annotated[str | None, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]


@dataclass(frozen=True, slots=True, config=EXACT)
class Chat:
    """/v1/chat/completions. `top_k`, `min_p`, `penalty_decay` and `state` are this server's own."""

    model: str
    messages: Annotated[list[Said], Field(min_length=1)]
    temperature: Temperature = None
    top_p: Share = None
    top_k: Whole = None
    min_p: Share = None
    presence_penalty: Penalty = None
    frequency_penalty: Penalty = None
    penalty_decay: Share = None
    logit_bias: dict[str, float] | None = None
    seed: Seed = None
    max_tokens: Count = None
    max_completion_tokens: Count = None
    n: Texts = None
    stop: Stop = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: Tops = None
    response_format: Form | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | Choice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Effort | None = None
    state: StateId = None
    store: bool | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None
    modalities: list[Literal["text"]] | None = None
    service_tier: Literal["auto", "default"] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None


@dataclass(frozen=True, slots=True, config=EXACT)
class Completion:
    """/v1/completions. `top_k`, `min_p`, `penalty_decay` and `state` are this server's own."""

    model: str
    prompt: str | list[str] | list[int] | list[list[int]] = ""
    temperature: Temperature = None
    top_p: Share = None
    top_k: Whole = None
    min_p: Share = None
    presence_penalty: Penalty = None
    frequency_penalty: Penalty = None
    penalty_decay: Share = None
    logit_bias: dict[str, float] | None = None
    seed: Seed = None
    max_tokens: Count = None
    n: Texts = None
    stop: Stop = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: Tops = None
    state: StateId = None
    store: bool | None = None
    user: str | None = None


def read(kind: type[T], body: bytes) -> T:
    """A body as `kind`. Raises Problem, in OpenAI's words, for the first thing that is wrong with it."""
    try:
        require_modest(body)
        return adapter(kind).validate_json(body)
    except ValidationError as error:
        raise wrong(error) from None
    except (RecursionError, ValueError):
        sentence = "the JSON body is nested too deeply, or has too many values"
        raise Problem(400, sentence, code="invalid_json") from None


_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}


def adapter(kind: type[T]) -> TypeAdapter[T]:
    """The reader of a kind; made once, for it takes milliseconds."""
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def wrong(error: ValidationError) -> Problem:
    """The first thing that is wrong, in OpenAI's words."""
    all_of_them: list[Any] = error.errors(include_url=False, include_input=False)
    field = all_of_them[0]["loc"][:1]
    # where several kinds are possible, the one that came furthest was meant
    found = max((one for one in all_of_them if one["loc"][:1] == field), key=lambda one: len(one["loc"]))
    kind, place = found["type"], [part for part in found["loc"] if not _is_branch(part)]
    name = brief(".".join(map(str, place)), 100)
    if kind == "json_invalid":
        told = "We could not parse the JSON body of your request"
        return Problem(400, f"{told}: {brief(found['msg'].partition(': ')[2], 150)}", code="invalid_json")
    if kind == "unexpected_keyword_argument":
        if place and str(place[-1]) in UNSUPPORTED:
            sentence = f"Unsupported parameter: '{name}' is not supported by this server."
            return Problem(400, sentence, param=name, code="unsupported_parameter")
        return Problem(400, f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
    if kind == "missing":
        sentence = f"Missing required parameter: '{name}'."
        return Problem(400, sentence, param=name, code="missing_required_parameter")
    code = "invalid_type" if kind.endswith("_type") else "invalid_value"
    where = f" for '{name}'" if name else ""
    return Problem(400, f"Invalid value{where}: {brief(found['msg'], 200)}.", param=name or None, code=code)


def _is_branch(part: object) -> bool:
    """Whether a part of a place names a kind of a union, not a field."""
    return isinstance(part, str) and not part.isidentifier() or part in BRANCHES
