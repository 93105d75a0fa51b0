"""The endpoints of OpenAI's API that write text, and the small ones."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from rwkv_engine.serve.chat import ChatReply, CompletionReply
from rwkv_engine.serve.http import Live, body_of, json_response
from rwkv_engine.serve.keeping import Kept
from rwkv_engine.serve.planning import Plan, plan_chat, plan_completions
from rwkv_engine.serve.pool import Hosted
from rwkv_engine.serve.problems import Problem
from rwkv_engine.serve.requests import Chat, Completion, read
from rwkv_engine.serve.server import Server

T = TypeVar("T")


def server_of(request: Request) -> Server:
    """The server that a request came to."""
    server = request.app.state.server
    assert isinstance(server, Server)
    return server


async def body(request: Request, kind: type[T]) -> T:
    """A request's body as `kind`. Raises Problem."""
    limits = server_of(request).limits
    data = await body_of(request, limits.body, limits.patience)
    return await asyncio.to_thread(read, kind, data) if len(data) > 50_000 else read(kind, data)


def start(server: Server, owner: str, id: str | None, hosted: Hosted) -> Kept | None:
    """The kept state that a request begins with, if it names one. Raises Problem."""
    return None if id is None else server.keeper.get(owner, id, hosted.model, hosted.name)


def begin(server: Server, hosted: Hosted, plan: Plan, owner: str, kept: Kept | None) -> Any:
    """Ask for what was planned, behind a kept state."""
    if kept is not None:
        plan = replace(plan, ids=[*kept.rest, *plan.ids])
        return server.ask(hosted, plan, owner, kept.state.fork())
    cache = server.prefix_cache(owner)
    return server.ask(hosted, replace(plan, wishes=replace(plan.wishes, prefix_cache=cache)), owner, None)


def keeper_of(
    server: Server,
    hosted: Hosted,
    plan: Plan,
    owner: str,
    id: str,
    reply: Any,
    asked: Any,
    kept: Kept | None,
    about: Callable[[], dict[str, Any]] = dict,
) -> Callable[[], None]:
    """What keeps the state behind the first text under the answer's id."""
    from rwkv_engine.text.markers import ids_rendered

    def settle() -> None:
        text, model = reply.texts[0], hosted.model
        if plan.prompt is not None and text.tagged:  # history has no thoughts: it is read again without them
            before = kept.state if kept is not None else model.new_state()
            rest, _ = ids_rendered(
                model.tokenizer,
                hosted.template,
                plan.messages,
                tools=plan.described,
                goes_on=plan.goes_on,
                answer=text.texts()[0],
            )
            place = Kept(before, (*(kept.rest if kept is not None else ()), *rest), hosted.name, about())
        else:
            place = Kept(asked.job.states[0], (), hosted.name, about())
        server.keeper.put(owner, id, place)

    return settle


async def chat(request: Request) -> Any:
    """/v1/chat/completions"""
    server, owner = server_of(request), request.state.owner
    asks = await body(request, Chat)
    hosted = await server.pool.take(asks.model)
    try:
        kept = await asyncio.to_thread(start, server, owner, asks.state, hosted)
        goes_on = kept is not None and bool(kept.state.position or kept.rest)
        defaults, limits = server.settings.sampling, server.limits
        plan = await asyncio.to_thread(
            plan_chat, hosted.model, hosted.template, asks, defaults, limits, goes_on
        )
        asked = begin(server, hosted, plan, owner, kept)
    finally:
        server.pool.give(hosted)
    usage = bool(asks.stream_options and asks.stream_options.include_usage)
    reply = ChatReply(hosted, plan, asked.job, usage)
    settle = keeper_of(server, hosted, plan, owner, reply.id, reply, asked, kept) if asks.store else None
    return Live(server, [asked], reply, bool(asks.stream), settle)


async def completions(request: Request) -> Any:
    """/v1/completions"""
    server, owner = server_of(request), request.state.owner
    asks = await body(request, Completion)
    hosted = await server.pool.take(asks.model)
    asked: list[Any] = []
    try:
        kept = await asyncio.to_thread(start, server, owner, asks.state, hosted)
        defaults, limits = server.settings.sampling, server.limits
        goes_on = kept is not None and bool(kept.state.position or kept.rest)
        plans = await asyncio.to_thread(plan_completions, hosted.model, asks, defaults, limits, goes_on)
        for plan in plans:
            asked.append(begin(server, hosted, plan, owner, kept))
    except Problem:
        for one in asked:
            server.done(one)
        raise
    finally:
        server.pool.give(hosted)
    usage = bool(asks.stream_options and asks.stream_options.include_usage)
    reply = CompletionReply(hosted, plans, [one.job for one in asked], usage)
    settle = None
    if asks.store:
        settle = keeper_of(server, hosted, plans[0], owner, reply.id, reply, asked[0], kept)
    return Live(server, asked, reply, bool(asks.stream), settle)


async def models(request: Request) -> Response:
    """/v1/models"""
    server = server_of(request)
    return json_response({"object": "list", "data": [_model(server, name) for name in server.pool.sources]})


async def model(request: Request) -> Response:
    """/v1/models/{name}"""
    server, name = server_of(request), request.path_params["name"]
    if name not in server.pool.sources:
        raise Problem(404, "The model does not exist.", param="model", code="model_not_found")
    return json_response(_model(server, name))


def _model(server: Server, name: str) -> dict[str, Any]:
    about = {"id": name, "object": "model", "created": server.pool.created, "owned_by": "rwkv_engine"}
    return {**about, "loaded": name in server.pool.loaded()}


async def health(request: Request) -> Response:
    """/health"""
    server = server_of(request)
    state = "stopping" if server.closing else "ok"
    return json_response({"status": state, "version": version("rwkv-engine")}, 503 if server.closing else 200)


async def metrics(request: Request) -> Response:
    """/metrics"""
    kind = "text/plain; version=0.0.4; charset=utf-8"
    return Response(server_of(request).metrics.text(), media_type=kind)
