"""Ollama's /api/chat, /api/generate and /api/tags, for programs that speak nothing else."""

import asyncio
import json
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass
from starlette.requests import Request
from starlette.responses import Response

from rwkv_engine.serve import endpoints
from rwkv_engine.serve.answers import Written
from rwkv_engine.serve.engine import Job
from rwkv_engine.serve.http import Live, json_response, to_json
from rwkv_engine.serve.planning import Plan, plan_chat
from rwkv_engine.serve.pool import Hosted
from rwkv_engine.serve.problems import Problem
from rwkv_engine.serve.requests import (
    EXACT,
    Called,
    Chat,
    Effort,
    Form,
    Said,
    Schema,
    Seed,
    Share,
    Temperature,
    Tool,
    ToolCall,
    Whole,
)
from rwkv_engine.writing.step import Step


@dataclass(frozen=True, slots=True, config=EXACT)
class Options:
    """How tokens are chosen, in Ollama's words.

    What only says how a model is to be loaded is taken and not needed.
    """

    temperature: Temperature = None
    top_p: Share = None
    top_k: Whole = None
    min_p: Share = None
    seed: Seed = None
    num_predict: int | None = None
    stop: list[str] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    num_ctx: int | None = None
    num_thread: int | None = None


@dataclass(frozen=True, slots=True, config=EXACT)
class OllamaCalled:
    """A function as the model called it: its arguments are no text here."""

    name: str
    arguments: dict[str, Any]
    index: int | None = None


@dataclass(frozen=True, slots=True, config=EXACT)
class OllamaCall:
    """A call in an assistant's message."""

    function: OllamaCalled
    id: str | None = None


@dataclass(frozen=True, slots=True, config=EXACT)
class OllamaSaid:
    """A message. What an answer of this server holds may come back in it."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[OllamaCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


@dataclass(frozen=True, slots=True, config=EXACT)
class OllamaAsk:
    """The body of /api/chat, and of /api/generate with `prompt` in place of `messages`."""

    model: str
    messages: Annotated[list[OllamaSaid] | None, Field(min_length=1)] = None
    tools: list[Tool] | None = None
    prompt: str | None = None
    system: str | None = None
    stream: bool | None = None
    format: str | dict[str, Any] | None = None
    options: Options | None = None
    think: bool | Literal["low", "medium", "high"] | None = None
    keep_alive: str | float | None = None


@endpoints.takes(OllamaAsk)
async def chat(request: Request, asks: OllamaAsk) -> Any:
    """A chat completion in Ollama's form."""
    return await _answer(request, asks, "messages")


@endpoints.takes(OllamaAsk)
async def generate(request: Request, asks: OllamaAsk) -> Any:
    """An answer in Ollama's form: the prompt is a user's message, as Ollama does it."""
    return await _answer(request, asks, "prompt")


async def tags(request: Request) -> Response:
    """The models by name, in Ollama's form."""
    server = endpoints.server_of(request)
    about = {
        "family": "rwkv",
        "format": "rwkv",
        "families": ["rwkv"],
        "parameter_size": "",
        "quantization_level": "",
    }
    when = datetime.fromtimestamp(server.pool.created, timezone.utc).isoformat()
    names = server.pool.sources
    models = [
        {"name": n, "model": n, "modified_at": when, "size": 0, "digest": "", "details": about} for n in names
    ]
    return json_response({"models": models})


async def _answer(request: Request, asks: OllamaAsk, field: str) -> Any:
    server, owner = endpoints.server_of(request), request.state.owner
    if getattr(asks, field) is None:
        raise Problem(
            400, f"Missing required parameter: '{field}'.", param=field, code="missing_required_parameter"
        )
    name = asks.model.removesuffix(":latest")
    hosted = await server.pool.take(name)
    try:
        asked_for, defaults, limits = as_chat(asks, name, field), server.settings.sampling, server.limits
        plan = await asyncio.to_thread(plan_chat, hosted.model, hosted.template, asked_for, defaults, limits)
        asked = endpoints.begin(server, hosted, plan, owner, None)
    finally:
        server.pool.give(hosted)
    reply = OllamaReply(hosted, plan, asked.job, asks.model, field == "messages")
    return Live(server, [asked], reply, asks.stream is not False)


def as_chat(asks: OllamaAsk, name: str, field: str) -> Chat:
    """The same request as one for a chat completion."""
    told = [Said("system", asks.system)] if asks.system else []
    said = [Said("user", asks.prompt or "")]
    if field == "messages" and asks.messages:
        said = [_said(message) for message in asks.messages]
    o = asks.options or Options()
    form = None
    if asks.format == "json":
        form = Form("json_object")
    elif isinstance(asks.format, dict):
        form = Form("json_schema", Schema(schema=asks.format))
    elif asks.format:
        raise Problem(
            400,
            "Invalid value for 'format': want \"json\" or a schema.",
            param="format",
            code="invalid_value",
        )
    return Chat(
        model=name,
        messages=[*told, *said],
        temperature=o.temperature,
        top_p=o.top_p,
        top_k=o.top_k,
        min_p=o.min_p,
        seed=o.seed,
        stop=o.stop,
        presence_penalty=o.presence_penalty,
        frequency_penalty=o.frequency_penalty,
        max_tokens=o.num_predict if o.num_predict is not None and o.num_predict > 0 else None,
        response_format=form,
        tools=asks.tools or None,
        reasoning_effort=_effort(asks.think),
    )


def _said(message: OllamaSaid) -> Said:
    """A message as a chat completion has it."""
    calls = [
        ToolCall(Called(call.function.name, json.dumps(call.function.arguments, ensure_ascii=False)))
        for call in message.tool_calls or ()
    ]
    return Said(message.role, message.content, tool_calls=calls or None)


def _effort(think: bool | Literal["low", "medium", "high"] | None) -> Effort | None:
    if think is None or isinstance(think, str):
        return think
    return "medium" if think else "none"


def _call(call: dict[str, Any]) -> dict[str, Any]:
    """A call in Ollama's form: arguments that are no object stand under a name."""
    try:
        given = json.loads(call["function"]["arguments"] or "{}")
    except ValueError:
        given = call["function"]["arguments"]
    arguments = given if isinstance(given, dict) else {"arguments": given}
    return {"id": call["id"], "function": {"name": call["function"]["name"], "arguments": arguments}}


class OllamaReply:
    """An answer as Ollama writes it: a JSON object on each line."""

    kind = "application/x-ndjson"

    def __init__(self, hosted: Hosted, plan: Plan, job: Job, name: str, chat: bool) -> None:
        self.texts = [Written(hosted.model.tokenizer, plan.prompt, plan.tools, plan.primed)]
        self._job, self._name, self._chat = job, name, chat
        self._first = self._last = 0.0

    def push(self, number: int, step: Step) -> None:
        """See `Reply`."""
        self.texts[0].push(step)
        self._first, self._last = step.usage.prompt_seconds, step.usage.seconds

    def chunks(self) -> bytes:
        """See `Reply`."""
        thought, said, _ = self.texts[0].take()
        return to_json({**self._said(said, thought), "done": False}) + b"\n" if thought or said else b""

    def last(self) -> bytes:
        """See `Reply`."""
        calls = self._said("", "", self.texts[0].calls) if self.texts[0].calls else None
        told = to_json({**calls, "done": False}) + b"\n" if calls else b""
        return told + to_json({**self._said("", ""), **self._end()}) + b"\n"

    def failed(self, problem: Problem) -> bytes:
        """See `Reply`."""
        return to_json({"error": str(problem)}) + b"\n"

    def whole(self) -> dict[str, Any]:
        """See `Reply`."""
        return {**self._said(*self.texts[0].texts(), self.texts[0].calls), **self._end()}

    def _said(self, said: str, thought: str, calls: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
        head = {"model": self._name, "created_at": datetime.now(timezone.utc).isoformat()}
        more: dict[str, Any] = {"thinking": thought} if thought else {}
        if calls:
            more["tool_calls"] = [_call(call) for call in calls]
        if self._chat:
            return {**head, "message": {"role": "assistant", "content": said, **more}}
        return {**head, "response": said, **more}

    def _end(self) -> dict[str, Any]:
        text = self.texts[0]
        return {
            "done": True,
            "done_reason": "stop" if text.reason == "tool_calls" else text.reason,
            "total_duration": int(self._last * 1e9),
            "prompt_eval_count": len(self._job.ids),
            "prompt_eval_duration": int(self._first * 1e9),
            "eval_count": text.tokens,
            "eval_duration": int((self._last - self._first) * 1e9),
        }
