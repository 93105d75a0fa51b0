"""/v1/responses: conversations that go on from a kept state, so that only the new turn is read."""

import asyncio
import secrets
import time
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass
from starlette.requests import Request
from starlette.responses import Response

from rwkv_engine.serve import endpoints
from rwkv_engine.serve.answers import Written
from rwkv_engine.serve.chat import SSE, usage_of
from rwkv_engine.serve.engine import Job
from rwkv_engine.serve.http import Live, json_response, to_json
from rwkv_engine.serve.planning import Plan, plan_chat
from rwkv_engine.serve.pool import Hosted
from rwkv_engine.serve.problems import Problem
from rwkv_engine.serve.requests import (
    EXACT,
    Chat,
    Count,
    Effort,
    Form,
    Said,
    Schema,
    Share,
    Temperature,
    TextPart,
)
from rwkv_engine.writing.step import Step


@dataclass(frozen=True, slots=True, config=EXACT)
class Item:
    """A message of the input. What an answer of this server holds may come back in it."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    type: Literal["message"] = "message"
    id: str | None = None
    status: str | None = None


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
    input: str | Annotated[list[Item], Field(min_length=1)]
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    stream: bool | None = None
    temperature: Temperature = None
    top_p: Share = None
    max_output_tokens: Count = None
    reasoning: Reasoning | None = None
    text: TextOptions | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    parallel_tool_calls: bool | None = None
    service_tier: Literal["auto", "default"] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None


async def create(request: Request) -> Any:
    """POST /v1/responses"""
    server, owner = endpoints.server_of(request), request.state.owner
    asks = await endpoints.body(request, Ask)
    hosted = await server.pool.take(asks.model)
    try:
        before = asks.previous_response_id
        if before is not None and not before.startswith("resp_"):
            raise Problem(404, "Previous response not found.", param="previous_response_id", code="not_found")
        kept = await asyncio.to_thread(endpoints.start, server, owner, before, hosted)
        defaults, limits = server.settings.sampling, server.limits
        plan = await asyncio.to_thread(
            plan_chat, hosted.model, hosted.template, as_chat(asks), defaults, limits, kept is not None
        )
        asked = endpoints.begin(server, hosted, plan, owner, kept)
    finally:
        server.pool.give(hosted)
    reply = ResponseReply(hosted, plan, asked.job, asks)
    settle = None
    if asks.store is not False:
        settle = endpoints.keeper_of(server, hosted, plan, owner, reply.id, reply, asked, kept, reply.about)
    return Live(server, [asked], reply, bool(asks.stream), settle)


async def show(request: Request) -> Response:
    """GET /v1/responses/{id}"""
    server, id = endpoints.server_of(request), request.path_params["id"]
    notes = await asyncio.to_thread(server.keeper.notes, request.state.owner, id)
    if "response" not in notes:
        raise Problem(404, f"There is no response '{id[:80]}'.", code="not_found")
    return json_response(notes["response"])


async def delete(request: Request) -> Response:
    """DELETE /v1/responses/{id}"""
    server, id = endpoints.server_of(request), request.path_params["id"]
    await asyncio.to_thread(server.keeper.delete, request.state.owner, id)
    return json_response({"id": id, "object": "response", "deleted": True})


def as_chat(asks: Ask) -> Chat:
    """The same request as one for a chat completion."""
    items = [Item("user", asks.input)] if isinstance(asks.input, str) else asks.input
    told = [Said("system", asks.instructions)] if asks.instructions else []
    form, wanted = None, asks.text.format if asks.text else None
    if wanted is not None:
        schema = Schema(wanted.name or "answer", wanted.schema) if wanted.type == "json_schema" else None
        form = Form(wanted.type, schema)
    return Chat(
        asks.model,
        [*told, *(Said(item.role, item.content) for item in items)],
        temperature=asks.temperature,
        top_p=asks.top_p,
        max_completion_tokens=asks.max_output_tokens,
        reasoning_effort=asks.reasoning.effort if asks.reasoning else None,
        response_format=form,
    )


class ResponseReply:
    """A response, whole or as the events of its stream."""

    kind = SSE

    def __init__(self, hosted: Hosted, plan: Plan, job: Job, asks: Ask) -> None:
        self.texts = [Written(hosted.model.tokenizer, plan.prompt)]
        self._job, self._asks, self._model = job, asks, hosted.name
        self.id, self._item = f"resp_{secrets.token_hex(16)}", f"msg_{secrets.token_hex(16)}"
        self._created, self._number, self._begun = int(time.time()), 0, False

    def push(self, number: int, step: Step) -> None:
        """See `Reply`."""
        self.texts[0].push(step)

    def chunks(self) -> bytes:
        """See `Reply`."""
        out = []
        if not self._begun:
            self._begun = True
            begun = {"response": self._object("in_progress", [])}
            out += [self._event("response.created", begun), self._event("response.in_progress", begun)]
            item = {**self._message("in_progress"), "content": []}
            out.append(self._event("response.output_item.added", {"output_index": 0, "item": item}))
            part = {"part": _part(""), **self._place()}
            out.append(self._event("response.content_part.added", part))
        thought, said, _ = self.texts[0].take()
        if thought:
            told = {"delta": thought, **self._place()}
            out.append(self._event("response.reasoning_text.delta", told))
        if said:
            told = {"delta": said, "logprobs": [], **self._place()}
            out.append(self._event("response.output_text.delta", told))
        return b"".join(out)

    def last(self) -> bytes:
        """See `Reply`."""
        said, whole = self.texts[0].texts()[0], self.whole()
        done = "response.completed" if whole["status"] == "completed" else "response.incomplete"
        message = self._message(whole["status"])
        return b"".join(
            (
                self._event("response.output_text.done", {"text": said, "logprobs": [], **self._place()}),
                self._event("response.content_part.done", {"part": _part(said), **self._place()}),
                self._event("response.output_item.done", {"output_index": 0, "item": message}),
                self._event(done, {"response": whole}),
            )
        )

    def failed(self, problem: Problem) -> bytes:
        """See `Reply`."""
        error = {"code": problem.code or "server_error", "message": str(problem)}
        return self._event("response.failed", {"response": {**self._object("failed", []), "error": error}})

    def whole(self) -> dict[str, Any]:
        """See `Reply`."""
        text = self.texts[0]
        status = "completed" if text.reason == "stop" else "incomplete"
        output = [self._message(status)]
        if text.texts()[1]:
            thought = [{"type": "reasoning_text", "text": text.texts()[1]}]
            about = {"id": f"rs_{self._item[4:]}", "type": "reasoning", "summary": [], "content": thought}
            output.insert(0, about)
        found = self._object(status, output)
        if status == "incomplete":
            found["incomplete_details"] = {"reason": "max_output_tokens"}
        used = usage_of([self._job], self.texts)
        found["usage"] = {
            "input_tokens": used["prompt_tokens"],
            "input_tokens_details": used["prompt_tokens_details"],
            "output_tokens": used["completion_tokens"],
            "output_tokens_details": used["completion_tokens_details"],
            "total_tokens": used["total_tokens"],
        }
        return found

    def about(self) -> dict[str, Any]:
        """What is kept beside the state."""
        return {"response": self.whole()}

    def _place(self) -> dict[str, Any]:
        return {"item_id": self._item, "output_index": 0, "content_index": 0}

    def _message(self, status: str) -> dict[str, Any]:
        part = [_part(self.texts[0].texts()[0])]
        return {"id": self._item, "type": "message", "role": "assistant", "status": status, "content": part}

    def _object(self, status: str, output: list[Any]) -> dict[str, Any]:
        asks = self._asks
        return {
            "id": self.id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "model": self._model,
            "output": output,
            "error": None,
            "incomplete_details": None,
            "instructions": asks.instructions,
            "metadata": asks.metadata or {},
            "parallel_tool_calls": True,
            "previous_response_id": asks.previous_response_id,
            "store": asks.store is not False,
            "temperature": asks.temperature,
            "tool_choice": "auto",
            "tools": [],
            "top_p": asks.top_p,
            "usage": None,
        }

    def _event(self, kind: str, told: dict[str, Any]) -> bytes:
        self._number += 1
        data = {"type": kind, "sequence_number": self._number - 1, **told}
        return f"event: {kind}\ndata: ".encode() + to_json(data) + b"\n\n"


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
