"""/v1/responses: conversations that go on from a kept state, so that only the new turn is read."""

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from rwkv_engine.serve import endpoints
from rwkv_engine.serve.http import Live, json_response
from rwkv_engine.serve.items import Ask, as_chat
from rwkv_engine.serve.planning import plan_chat
from rwkv_engine.serve.problems import Problem
from rwkv_engine.serve.response_reply import ResponseReply


@endpoints.takes(Ask)
async def create(request: Request, asks: Ask) -> Any:
    """An answer that can be resumed with `previous_response_id`, whole or as a stream."""
    server, owner = endpoints.server_of(request), request.state.owner
    hosted = await server.pool.take(asks.model)
    try:
        before = asks.previous_response_id
        if before is not None and not before.startswith("resp_"):
            raise Problem(404, "Previous response not found.", param="previous_response_id", code="not_found")
        kept = await asyncio.to_thread(endpoints.start, server, owner, before, hosted)
        defaults, limits = server.settings.sampling, server.limits
        plan = await asyncio.to_thread(
            plan_chat,
            hosted.model,
            hosted.template,
            as_chat(asks),
            defaults,
            limits,
            endpoints.behind(kept),
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
    """A response that was kept."""
    server, id = endpoints.server_of(request), request.path_params["id"]
    notes = await asyncio.to_thread(server.keeper.notes, request.state.owner, id)
    if "response" not in notes:
        raise Problem(404, f"There is no response '{id[:80]}'.", code="not_found")
    return json_response(notes["response"])


async def delete(request: Request) -> Response:
    """Forget a response and its state."""
    server, id = endpoints.server_of(request), request.path_params["id"]
    await asyncio.to_thread(server.keeper.delete, request.state.owner, id)
    return json_response({"id": id, "object": "response", "deleted": True})
