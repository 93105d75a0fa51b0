"""The application: which path leads where, who may come in, and what goes wrong as an answer."""

import contextlib
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from rwkv_engine.errors import EngineError
from rwkv_engine.serve import endpoints, ollama, responses, states, web
from rwkv_engine.serve.http import json_response, refusal
from rwkv_engine.serve.openapi import document
from rwkv_engine.serve.problems import Problem, problem_of
from rwkv_engine.serve.server import Server

#: paths that everybody may ask for, besides the web page's
OPEN = frozenset({"/health", "/openapi.json"})


async def openapi(request: Request) -> Response:
    """This document."""
    return json_response(document(PATHS, bool(endpoints.server_of(request).settings.keys)))


#: method, path, endpoint
PATHS: tuple[tuple[str, str, Callable[[Request], Awaitable[Any]]], ...] = (
    ("POST", "/v1/chat/completions", endpoints.chat),
    ("POST", "/v1/completions", endpoints.completions),
    ("POST", "/v1/responses", responses.create),
    ("GET", "/v1/responses/{id}", responses.show),
    ("DELETE", "/v1/responses/{id}", responses.delete),
    ("POST", "/v1/states", states.save),
    ("GET", "/v1/states", states.all_of_them),
    ("GET", "/v1/states/{id}", states.download),
    ("PUT", "/v1/states/{id}", states.upload),
    ("DELETE", "/v1/states/{id}", states.delete),
    ("POST", "/v1/tokenize", states.tokenize),
    ("POST", "/v1/embeddings", states.embeddings),
    ("POST", "/api/chat", ollama.chat),
    ("POST", "/api/generate", ollama.generate),
    ("GET", "/api/tags", ollama.tags),
    ("GET", "/v1/models", endpoints.models),
    ("GET", "/v1/models/{name:path}", endpoints.model),
    ("GET", "/openapi.json", openapi),
    ("GET", "/", web.show),
    ("GET", "/page/{file}", web.show),
    ("GET", "/health", endpoints.health),
    ("GET", "/metrics", endpoints.metrics),
)


def make_app(server: Server) -> Starlette:
    """The ASGI application of a server."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        server.open()
        yield
        server.close()

    middleware = [Middleware(Guard, server=server)]
    origins = server.settings.origins
    if origins:
        cors = Middleware(CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"])
        middleware.insert(0, cors)
    app = Starlette(
        routes=[Route(path, _telling(endpoint), methods=[method]) for method, path, endpoint in PATHS],
        middleware=middleware,
        lifespan=lifespan,
        exception_handlers={HTTPException: _http, Problem: _problem},  # type: ignore[dict-item]
    )
    app.state.server = server
    return app


class Guard:
    """Lets in who may come, and counts what is answered."""

    def __init__(self, app: ASGIApp, server: Server) -> None:
        self._app, self._server = app, server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, path = Headers(scope=scope), scope["path"]
        known = path if any(path == route[1] for route in PATHS) else "other"

        async def counting(message: Any) -> None:
            if message["type"] == "http.response.start":
                self._server.metrics.requests.labels(known, str(message["status"])).inc()
            await send(message)

        try:
            self._server.door.guard(headers)
            free = path in OPEN or path in web.page()
            scope.setdefault("state", {})["owner"] = "" if free else self._server.door.owner(headers)
        except Problem as problem:
            await refusal(problem, path)(scope, receive, counting)
            return
        await self._app(scope, receive, counting)


def _telling(endpoint: Callable[[Request], Awaitable[Any]]) -> Callable[[Request], Awaitable[Any]]:
    """An endpoint whose problems, and the engine's, are answers. Only a bug of ours is a 500."""

    async def told(request: Request) -> Any:
        path = request.url.path
        try:
            return await endpoint(request)
        except Problem as problem:
            return refusal(problem, path)
        except EngineError as error:
            return refusal(problem_of(error), path)
        except Exception:  # whatever it is, the client gets an answer and the log the place
            traceback.print_exc()
            return refusal(
                Problem(500, "The server made a mistake; its log says where.", code="internal"), path
            )

    return told


async def _http(request: Request, error: HTTPException) -> Response:
    told = {404: "There is no such path here.", 405: "This path does not take this method."}
    sentence = told.get(error.status_code, error.detail)
    response = refusal(
        Problem(error.status_code, sentence, code="not_found" if error.status_code == 404 else None),
        request.url.path,
    )
    for name, value in (error.headers or {}).items():
        response.headers[name] = value
    return response


async def _problem(request: Request, problem: Problem) -> Response:
    return refusal(problem, request.url.path)
