"""From a request to a job: prompts, sampling, constraints and limits.

Runs outside the event loop; touches no network.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rwkv_engine.errors import OptionError
from rwkv_engine.model import Model
from rwkv_engine.serve.problems import Problem
from rwkv_engine.serve.requests import Chat, Choice, Completion, Form, Said
from rwkv_engine.serve.tools import schema_for, written
from rwkv_engine.text.chat import Message, Template, Think, tools_told
from rwkv_engine.text.markers import ids_rendered, turn_ends
from rwkv_engine.writing.constraint import Constraint
from rwkv_engine.writing.sampling import Sampling
from rwkv_engine.writing.wishes import Wishes


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may ask for.

    body      bytes of a request.           prompt   tokens of a prompt.    tokens  that one text may have.
    seconds   that one request may take; 0: any.    queue  requests that may wait for a place.
    sequences texts at once on one model.   patience  seconds in which a request's body has to come.
    """

    body: int = 16 << 20
    prompt: int = 1 << 20
    tokens: int = 8192
    seconds: float = 0.0
    queue: int = 256
    sequences: int = 32
    patience: float = 30.0


@dataclass(frozen=True, slots=True)
class Behind:
    """What the messages of a request follow: the state of an earlier answer.

    tools  that it has been told of.
    """

    tools: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What a request comes to.

    ids, wishes, count  of the job.    prompt  its text, None for a plain completion.    tools  names of
                        functions.
    primed  whether the prompt opens a call.    tops  alternatives to tell; None: no probabilities.
    messages, described  what was said and the tools' descriptions, to write history down.    goes_on  behind
                         a state.
    """

    ids: list[int]
    wishes: Wishes
    count: int = 1
    prompt: str | None = None
    tools: tuple[str, ...] = ()
    primed: bool = False
    tops: int | None = None
    messages: tuple[Message, ...] = ()
    described: tuple[dict[str, Any], ...] = ()
    goes_on: bool = False


#: what each effort means: modes of thinking, the first that the template has
EFFORTS: dict[str, tuple[Think, ...]] = {
    "none": ("fast", "off"),
    "minimal": ("fast", "off"),
    "low": ("on",),
    "medium": ("on",),
    "high": ("long", "on"),
    "xhigh": ("long", "on"),
}


def think_of(effort: str | None, template: Template) -> Think:
    """The mode of thinking for an effort. Raises Problem where the model cannot."""
    if effort is None:
        return "off"
    for mode in EFFORTS[effort]:
        if mode in template.thinks:
            return mode
    sentence = f"Unsupported value: 'reasoning_effort' does not support '{effort}' with this model."
    raise Problem(400, sentence, param="reasoning_effort", code="unsupported_value")


def sampling_of(body: Chat | Completion, defaults: Sampling, vocab: int) -> Sampling:
    """The sampling that a request asks for."""
    given: dict[str, Any] = {
        "temperature": body.temperature,
        "top_p": body.top_p,
        "top_k": body.top_k,
        "min_p": body.min_p,
        "presence": body.presence_penalty,
        "frequency": body.frequency_penalty,
        "decay": body.penalty_decay,
        "seed": None if body.seed is None else body.seed % (1 << 64),
    }
    if body.logit_bias:
        given["bias"] = (*defaults.bias, *(_bias(*pair, vocab) for pair in body.logit_bias.items()))
    return replace(defaults, **{name: value for name, value in given.items() if value is not None})


def _bias(token: str, number: float, vocab: int) -> tuple[int, float]:
    if not (token.isascii() and token.isdigit() and len(token) < 10 and int(token) < vocab):
        sentence = (
            f"Invalid key in 'logit_bias': {token[:20]!r}. Token ids are whole numbers from 0 to {vocab - 1}."
        )
        raise Problem(400, sentence, param="logit_bias", code="invalid_value")
    if abs(number) > 100:
        raise Problem(
            400, "Invalid value in 'logit_bias': want -100 to 100.", param="logit_bias", code="invalid_value"
        )
    return int(token), number


def stops_of(stop: str | list[str] | None) -> tuple[str, ...]:
    """The stop strings of a request. Raises Problem."""
    stops = () if stop is None else (stop,) if isinstance(stop, str) else tuple(stop)
    if len(stops) > 16 or any(not text or len(text) > 1000 for text in stops):
        sentence = "Invalid 'stop': want at most 16 texts of 1 to 1,000 characters."
        raise Problem(400, sentence, param="stop", code="invalid_value")
    return stops


def room(limits: Limits, asked: int | None, default: int | None = None) -> int:
    """How many tokens a text may have. Raises Problem for more than the server allows."""
    if asked is not None and asked > limits.tokens:
        sentence = f"max_tokens is too large: {asked}. This server writes at most {limits.tokens} tokens."
        raise Problem(400, sentence, param="max_tokens", code="invalid_value")
    return asked or min(default or limits.tokens, limits.tokens)


def checked(ids: list[int], limits: Limits, count: int) -> None:
    """Raise Problem for a prompt or a number of texts over the limits."""
    if len(ids) > limits.prompt:
        sentence = f"The prompt has {len(ids)} tokens; this server reads at most {limits.prompt}."
        raise Problem(400, sentence, param="messages", code="context_length_exceeded")
    if count > limits.sequences:
        sentence = (
            f"Invalid value for 'n': {count}. This server writes at most {limits.sequences} texts at once."
        )
        raise Problem(400, sentence, param="n", code="invalid_value")


def said(messages: Sequence[Said]) -> tuple[Message, ...]:
    """The messages as a template knows them. A thought is no part of history."""
    return tuple(_message(message) for message in messages)


def _message(message: Said) -> Message:
    content = message.content
    text = content if isinstance(content, str) else "".join(part.text for part in content or ())
    if message.tool_calls:
        calls = [written(call.function.name, call.function.arguments) for call in message.tool_calls]
        text = "\n".join([text, *calls] if text.strip() else calls)
    return Message("system" if message.role == "developer" else message.role, text)


def constraint_of(form: Form | None, thinks: bool) -> Constraint | None:
    """What the answer has to look like. Raises Problem, OptionError, MissingExtra."""
    if form is None or form.type == "text":
        return None
    after = "</think>" if thinks else None
    if form.type == "json_object":
        return Constraint.json_schema({"type": "object"}, after=after)
    if form.json_schema is None or form.json_schema.schema is None:
        name = "response_format.json_schema.schema"
        raise Problem(
            400, f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter"
        )
    try:
        return Constraint.json_schema(form.json_schema.schema, after=after)
    except OptionError as error:
        raise Problem(
            400,
            f"Invalid schema for response_format: {error}",
            param="response_format",
            code="invalid_schema",
        ) from None


def plan_chat(
    model: Model,
    template: Template,
    body: Chat,
    defaults: Sampling,
    limits: Limits,
    behind: Behind | None = None,
) -> Plan:
    """The plan of a chat completion. Raises Problem, EngineError.

    behind  what the messages follow; None: they are the whole conversation.
    """
    if body.top_logprobs is not None and not body.logprobs:
        raise Problem(
            400, "'top_logprobs' needs 'logprobs': true.", param="top_logprobs", code="invalid_value"
        )
    messages = said(body.messages)
    if not messages or messages[-1].role not in ("user", "tool"):
        raise Problem(
            400, "The last message has to be the user's or a tool's.", param="messages", code="invalid_value"
        )
    think = think_of(body.reasoning_effort, template)
    tools = described(body)
    called = body.tool_choice == "required" or isinstance(body.tool_choice, Choice)
    if called and not tools:
        raise Problem(400, "'tool_choice' needs 'tools'.", param="tool_choice", code="invalid_value")
    if called:
        chosen = body.tool_choice.function.name if isinstance(body.tool_choice, Choice) else None
        constraint: Constraint | None = Constraint.json_schema(schema_for(tools, chosen))
        think = "off"
    else:
        constraint = constraint_of(body.response_format, think != "off")
    if (
        behind is not None and tools and tools != behind.tools
    ):  # a template tells of them at the beginning only
        messages = (Message("system", tools_told(tools)), *messages)
    goes_on = behind is not None
    ids, prompt = ids_rendered(model.tokenizer, template, messages, think, tools, called, goes_on=goes_on)
    count = body.n or 1
    checked(ids, limits, count)
    if constraint is not None:
        constraint.begin(model.tokenizer)  # what a vocabulary is prepared for once takes its time here
    wishes = Wishes(
        room(limits, body.max_completion_tokens or body.max_tokens),
        sampling_of(body, defaults, model.vocab),
        (*template.stops, *stops_of(body.stop)),
        constraint,
        alternatives=body.top_logprobs or 0,
        ends=turn_ends(model.tokenizer, template),
    )
    names = tuple(tool["name"] for tool in tools)
    tops = (body.top_logprobs or 0) if body.logprobs else None
    return Plan(ids, wishes, count, prompt, names, called, tops, messages, tools, goes_on)


def described(body: Chat) -> tuple[dict[str, Any], ...]:
    """The tools that may be called, as a model is told of them."""
    if body.tool_choice == "none":
        return ()
    found = []
    for tool in body.tools or ():
        f = tool.function
        about = {"name": f.name, "description": f.description, "parameters": f.parameters}
        found.append({name: value for name, value in about.items() if value is not None})
    return tuple(found)


def plan_completions(
    model: Model, body: Completion, defaults: Sampling, limits: Limits, goes_on: bool = False
) -> list[Plan]:
    """The plans of a completion, one for each prompt. Raises Problem, EngineError."""
    prompts: list[Any] = [body.prompt]
    if isinstance(body.prompt, list) and body.prompt and isinstance(body.prompt[0], (str, list)):
        prompts = list(body.prompt)
    count = body.n or 1
    if count * len(prompts) > limits.sequences:
        checked([], limits, count * len(prompts))
    wishes = Wishes(
        room(limits, body.max_tokens, 16),
        sampling_of(body, defaults, model.vocab),
        stops_of(body.stop),
        alternatives=body.logprobs or 0,
    )
    plans = []
    for prompt in prompts:
        ids = model.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
        checked(ids, limits, count)
        if not ids and goes_on:
            raise Problem(400, "the prompt is empty", param="prompt", code="invalid_value")
        if any(not 0 <= token < model.vocab for token in ids):
            sentence = f"Invalid token in 'prompt': this model has ids 0 to {model.vocab - 1}."
            raise Problem(400, sentence, param="prompt", code="invalid_value")
        plans.append(Plan(ids, wishes, count, tops=body.logprobs))
    return plans
