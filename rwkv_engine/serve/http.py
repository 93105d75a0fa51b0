"""Bodies in, answers out: limits on what is read, and streams that end when their client leaves."""

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from typing import Any, Protocol

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from rwkv_engine.errors import EngineError
from rwkv_engine.serve.problems import Problem, problem_of
from rwkv_engine.serve.server import Asked, Server
from rwkv_engine.writing.step import Step


def to_json(value: Any) -> bytes:
    """A value as JSON, as short as it can be."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A value as an answer."""
    return Response(to_json(value), status, headers, "application/json")


def refusal(problem: Problem, path: str = "") -> Response:
    """A problem as an answer, in the form of the API that the path belongs to."""
    headers = {"retry-after": str(problem.after)} if problem.after is not None else {}
    if problem.status == 401:
        headers["www-authenticate"] = "Bearer"
    if problem.status in (408, 413):
        headers["connection"] = "close"
    body = {"error": str(problem)} if path.startswith("/api/") else problem.body()
    return json_response(body, problem.status, headers)


async def body_of(request: Request, most: int, patience: float) -> bytes:
    """A request's body. Raises Problem for one that is too long or takes too long."""
    told = request.headers.get("content-length", "")
    too_long = Problem(
        413, f"The request is too large: this server reads at most {most} bytes.", code="too_large"
    )
    if told.isdigit() and int(told) > most:
        raise too_long
    parts: list[bytes] = []

    async def reading() -> None:
        size = 0
        async for part in request.stream():
            size += len(part)
            if size > most:
                raise too_long
            parts.append(part)

    try:
        await asyncio.wait_for(reading(), patience)
    except (TimeoutError, asyncio.TimeoutError):
        raise Problem(408, "The request did not come in time.", code="timeout") from None
    except ClientDisconnect:
        raise Problem(400, "The client left.", code="disconnected") from None
    return b"".join(parts)


class Reply(Protocol):
    """The form of an answer, as texts come to it.

    kind  of content, for a stream.
    """

    kind: str

    def push(self, number: int, step: Step) -> None:
        """Take a step of text `number` in."""

    def chunks(self) -> bytes:
        """What a stream tells of what is new, possibly nothing."""

    def last(self) -> bytes:
        """What a stream ends with."""

    def failed(self, problem: Problem) -> bytes:
        """What a stream ends with where something went wrong."""

    def whole(self) -> Any:
        """The answer in one piece."""


class Live:
    """An ASGI answer of texts under way.

    asked   the jobs, one after another numbered through.    stream  piece by piece, or whole when it is done.
    settle  called behind the last step, before the answer ends: what keeps states.
    """

    def __init__(
        self,
        server: Server,
        asked: list[Asked],
        reply: Reply,
        stream: bool,
        settle: Callable[[], Any] | None = None,
    ) -> None:
        self._server, self._asked, self._reply, self._stream = server, asked, reply, stream
        self._settle = settle
        self.status = 200

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, unless the client leaves: then its places are free before the next step."""
        work = asyncio.ensure_future(self._answer(scope, receive, send))
        gone = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work
        finally:
            work.cancel()
            gone.cancel()
            for asked in self._asked:
                self._server.done(asked)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False
        try:
            for first, asked in self._numbered():
                left = asked.job.count
                while left:
                    left -= await self._next(first, asked)
                    if self._stream:
                        data = self._reply.chunks()
                        if not begun:
                            begun = await self._begin(send)
                        if data:
                            await send({"type": "http.response.body", "body": data, "more_body": True})
            await self._kept()
        except Problem as problem:
            if begun:
                await send({"type": "http.response.body", "body": self._reply.failed(problem)})
            else:
                await refusal(problem, scope["path"])(scope, receive, send)
            return
        if self._stream:
            await send({"type": "http.response.body", "body": self._reply.last()})
        else:
            await json_response(self._reply.whole())(scope, receive, send)

    def _numbered(self) -> list[tuple[int, Asked]]:
        """The jobs, each with the number of its first text."""
        found, number = [], 0
        for asked in self._asked:
            found.append((number, asked))
            number += asked.job.count
        return found

    async def _next(self, first: int, asked: Asked) -> int:
        """Take in what has come; how many texts have ended with it. Raises Problem."""
        events = await asked.events.get()
        while not asked.events.empty():
            events = events + asked.events.get_nowait()
        ended = 0
        for _, number, step in events:
            if isinstance(step, EngineError):
                raise self._why(step)
            if step.stop == "failed" and step.error is not None:
                raise problem_of(step.error)
            if not asked.first:
                asked.first = time.perf_counter() - asked.begun
                self._server.metrics.first.observe(asked.first)
                self._server.metrics.prompt.inc(len(asked.job.ids))
            self._server.metrics.tokens.inc()
            self._reply.push(first + number, step)
            ended += step.stop is not None
            if step.stop is not None:
                self._server.metrics.seconds.observe(time.perf_counter() - asked.begun)
            if step.stop == "cancelled" and self._server.closing:
                raise self._why(EngineError())
        return ended

    def _why(self, error: EngineError) -> Problem:
        if self._server.closing:
            return Problem(503, "The server is being stopped.", code="shutting_down", after=30)
        if str(error) == "no place in time":
            return Problem(503, "There was no place in time; try again.", code="overloaded", after=5)
        return problem_of(error)

    async def _begin(self, send: Send) -> bool:
        headers = [
            (b"content-type", self._reply.kind.encode()),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        return True

    async def _kept(self) -> None:
        if self._settle is not None:
            await asyncio.to_thread(self._settle)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
