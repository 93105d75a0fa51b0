"""The endpoints of OpenAI's API that write text, and the small ones."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any, Generic, TypeVar

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from rwkv_engine.serve.chat import ChatReply, CompletionReply
from rwkv_engine.serve.http import Live, body_of, json_response
from rwkv_engine.serve.keeping import Kept
from rwkv_engine.serve.planning import Behind, Plan, plan_chat, plan_completions
from rwkv_engine.serve.pool import Hosted
from rwkv_engine.serve.problems import Problem
from rwkv_engine.serve.requests import Chat, Completion, read, wrong
from rwkv_engine.serve.server import Server

T = TypeVar("T")


def server_of(request: Request) -> Server:
    """The server that a request came to."""
    server = request.app.state.server
    assert isinstance(server, Server)
    return server


@dataclass(frozen=True, slots=True)
class Takes(Generic[T]):
    """An endpoint whose request has a JSON body of `kind`: it is read, checked, and handed on."""

    kind: type[T]
    answer: Callable[[Request, T], Awaitable[Any]]

    async def __call__(self, request: Request) -> Any:
        """Answer. Raises Problem for a body that is no `kind`, or whose meaning as another kind is none."""
        limits = server_of(request).limits
        data = await body_of(request, limits.body, limits.patience)
        late = len(data) > 50_000
        asks = await asyncio.to_thread(read, self.kind, data) if late else read(self.kind, data)
        try:
            return await self.answer(request, asks)
        except ValidationError as error:
            raise wrong(error) from None


def takes(kind: type[T]) -> Callable[[Callable[[Request, T], Awaitable[Any]]], Takes[T]]:
    """Make an endpoint of a function of (request, its body as `kind`)."""
    return lambda answer: Takes(kind, answer)


def start(server: Server, owner: str, id: str | None, hosted: Hosted) -> Kept | None:
    """The kept state that a request begins with, if it names one. Raises Problem."""
    return None if id is None else server.keeper.get(owner, id, hosted.model, hosted.name)


def behind(kept: Kept | None) -> Behind | None:
    """What a request follows that begins with a kept state; None where nothing has been read."""
    if kept is None or not (kept.state.position or kept.rest):
        return None
    return Behind(tuple(kept.about.get("tools", ())))


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
        known = list(plan.described) or (kept.about.get("tools", []) if kept is not None else [])
        notes = {**about(), **({"tools": known} if known else {})}
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
            place = Kept(before, (*(kept.rest if kept is not None else ()), *rest), hosted.name, notes)
        else:  # the prompt opened a block for the call: history closes it
            rest = model.tokenizer.encode("\n```") if plan.primed else []
            place = Kept(asked.job.states[0], tuple(rest), hosted.name, notes)
        server.keeper.put(owner, id, place)

    return settle


@takes(Chat)
async def chat(request: Request, asks: Chat) -> Any:
    """An answer in a conversation, whole or as a stream."""
    server, owner = server_of(request), request.state.owner
    hosted = await server.pool.take(asks.model)
    try:
        kept = await asyncio.to_thread(start, server, owner, asks.state, hosted)
        defaults, limits = server.settings.sampling, server.limits
        plan = await asyncio.to_thread(
            plan_chat, hosted.model, hosted.template, asks, defaults, limits, behind(kept)
        )
        asked = begin(server, hosted, plan, owner, kept)
    finally:
        server.pool.give(hosted)
    usage = bool(asks.stream_options and asks.stream_options.include_usage)
    reply = ChatReply(hosted, plan, asked.job, usage)
    settle = keeper_of(server, hosted, plan, owner, reply.id, reply, asked, kept) if asks.store else None
    return Live(server, [asked], reply, bool(asks.stream), settle)


@takes(Completion)
async def completions(request: Request, asks: Completion) -> Any:
    """What goes on from text or token ids, whole or as a stream."""
    server, owner = server_of(request), request.state.owner
    hosted = await server.pool.take(asks.model)
    asked: list[Any] = []
    try:
        kept = await asyncio.to_thread(start, server, owner, asks.state, hosted)
        defaults, limits = server.settings.sampling, server.limits
        goes_on = behind(kept) is not None
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
    """The models by name."""
    server = server_of(request)
    return json_response({"object": "list", "data": [_model(server, name) for name in server.pool.sources]})


async def model(request: Request) -> Response:
    """A model by its name."""
    server, name = server_of(request), request.path_params["name"]
    if name not in server.pool.sources:
        raise Problem(404, "The model does not exist.", param="model", code="model_not_found")
    return json_response(_model(server, name))


def _model(server: Server, name: str) -> dict[str, Any]:
    about = {"id": name, "object": "model", "created": server.pool.created, "owned_by": "rwkv_engine"}
    return {**about, "loaded": name in server.pool.loaded()}


async def health(request: Request) -> Response:
    """Whether the server runs."""
    server = server_of(request)
    state = "stopping" if server.closing else "ok"
    return json_response({"status": state, "version": version("rwkv-engine")}, 503 if server.closing else 200)


async def metrics(request: Request) -> Response:
    """Counters for Prometheus."""
    kind = "text/plain; version=0.0.4; charset=utf-8"
    return Response(server_of(request).metrics.text(), media_type=kind)
