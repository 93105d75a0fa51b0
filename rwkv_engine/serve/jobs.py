"""A file of requests in, a file of answers out: what `rwkv batch` does. Needs nothing of the network.

A request's line is in OpenAI's batch format, `{"custom_id", "method", "url", "body"}`, or `{"prompt"}` with
`"id"` or without, or a JSON string. An answer is one whole line, written at once and in the order in which
texts end, with its request's id. A run that was killed is resumed: the last line, if it is not whole, is cut
off, and ids that are there are not asked again.
"""

import contextlib
import itertools
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

from rwkv_engine.errors import EngineError, OptionError, brief
from rwkv_engine.model import Model
from rwkv_engine.numbers.shapes import CHUNK
from rwkv_engine.system.extras import missing
from rwkv_engine.system.json_text import parsed
from rwkv_engine.writing.batch import Batch
from rwkv_engine.writing.sampling import Sampling

try:
    from rwkv_engine.serve.chat import ChatReply, CompletionReply
    from rwkv_engine.serve.engine import Job as Texts
    from rwkv_engine.serve.planning import Limits, Plan, plan_chat, plan_completions
    from rwkv_engine.serve.pool import Hosted
    from rwkv_engine.serve.problems import Problem, problem_of
    from rwkv_engine.serve.requests import Chat, Completion, read
except ImportError as error:
    raise missing("a batch", "serve", error.name or "starlette") from None


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be done: files, and what holds where a request says nothing."""

    requests: Path
    answers: Path
    sampling: Sampling = Sampling()
    max_tokens: int = 256
    max_sequences: int = 32


@dataclass(slots=True)
class Done:
    """How far it is: requests answered now, those answered by runs before, those refused; tokens written."""

    answered: int = 0
    before: int = 0
    failed: int = 0
    tokens: int = 0


@dataclass(slots=True, eq=False)
class _Request:
    """A request under way: its reply, how many of its texts are not over, and the tokens so far."""

    id: str
    reply: Any
    left: int
    tokens: int = 0


#: most bytes of a request, as for the server
LINE = Limits().body
#: tell(requests done, requests in all, tokens a second)
Tell = Callable[[int, int, float], None]


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of a request: its whole line, the tokens that were written, whether it was refused."""

    id: str
    line: bytes
    tokens: int
    failed: bool


class Out:
    """The file of answers. One process writes it, so no request is answered twice.

    known  ids that have an answer.    total  requests in all.    done  how far it is.
    """

    __slots__ = ("_begun", "_file", "_requests", "_tell", "done", "known", "total")

    def __init__(self, job: Job, file: BinaryIO, total: int, known: set[str], tell: Tell) -> None:
        self._requests, self._file, self._tell = job.requests, file, tell
        self.total, self.known, self.done = total, known, Done(before=len(known))
        self._begun = time.monotonic()

    def left(self) -> Iterator[tuple[str, bytes]]:
        """(id, line) of the requests without an answer."""
        with self._requests.open("rb") as lines:
            yield from ((id, line) for id, line in _all(lines) if id not in self.known)

    def write(self, answer: Answer) -> None:
        """Write a whole line at once: a kill leaves the line or a beginning of it. A second answer is dropped."""
        if answer.id in self.known:
            return
        self._file.write(answer.line)
        self._file.flush()
        self.known.add(answer.id)
        self.done.answered += not answer.failed
        self.done.failed += answer.failed
        self.done.tokens += answer.tokens
        seconds = max(time.monotonic() - self._begun, 1e-9)
        self._tell(len(self.known), self.total, self.done.tokens / seconds)


@contextlib.contextmanager
def opened(job: Job, tell: Tell) -> Iterator[Out]:
    """The file of answers, ready to go on. Raises OptionError for files that cannot be read or written."""
    try:
        total, known = _count(job.requests), _resume(job.answers)
        with job.answers.open("ab") as file:
            yield Out(job, file, total, known, tell)
    except OSError as error:
        raise OptionError(f"{error.filename or job.answers}: {error.strerror or error}") from None


def run(model: Model, job: Job, tell: Tell = lambda done, total, rate: None) -> Done:
    """Answer all requests that have no answer yet.

    Raises OptionError for files that cannot be read or written.
    """
    with opened(job, tell) as out:
        for answer in answered(model, job, out.left()):
            out.write(answer)
        return out.done


def answered(model: Model, job: Job, waiting: Iterator[tuple[str, bytes]]) -> Iterator[Answer]:
    """The answers of requests, (id, line) each, in the order in which they are done: the batch is kept full."""
    batch, running = Batch(model, job.max_sequences, CHUNK), dict[int, tuple[_Request, int]]()
    hosted = Hosted("model", model, model.template, 0)
    ahead: list[tuple[str, Any, list[Plan]]] = []
    while True:
        while len(batch) < batch.max_sequences:
            if not ahead:
                found = next(waiting, None)
                if found is None:
                    break
                try:
                    ahead = [(found[0], *_planned(hosted, job, found[1]))]
                except (Problem, EngineError) as error:
                    yield _refused(found[0], error)
                    continue
            if len(batch) + sum(plan.count for plan in ahead[0][2]) > batch.max_sequences:
                break
            try:
                _enter(batch, running, *ahead[0])
            except EngineError as error:
                yield _refused(ahead[0][0], error)
            ahead.clear()
        if not len(batch):
            if ahead:
                continue
            return
        for ticket, step in batch.step():
            request, number = running[ticket]
            request.reply.push(number, step)
            request.tokens += 1
            if step.stop is not None:
                del running[ticket]
                request.left -= 1
                if request.left == 0:
                    line = _line(request.id, 200, request.reply.whole())
                    yield Answer(request.id, line, request.tokens, False)


def _enter(
    batch: Batch, running: dict[int, tuple[_Request, int]], id: str, reply: Any, plans: list[Plan]
) -> None:
    """Begin the texts of a request; none of them where that raises EngineError."""
    request, number = _Request(id, reply, sum(plan.count for plan in plans)), itertools.count()
    tickets = []
    try:
        for plan in plans:
            for copy in range(plan.count):
                w, sampling = plan.wishes, plan.wishes.sampling
                if copy and sampling.seed is not None:
                    sampling = replace(sampling, seed=sampling.seed + copy)
                ticket = batch.add(
                    plan.ids, max_tokens=w.max_tokens, sampling=sampling, stop=w.stop, constraint=w.constraint,
                    alternatives=w.alternatives, ends=w.ends,
                )  # fmt: skip
                tickets.append(ticket)
                running[ticket] = request, next(number)
    except EngineError:
        for ticket in tickets:
            batch.cancel(ticket)
            del running[ticket]
        raise


def _refused(id: str, error: Exception) -> Answer:
    problem = error if isinstance(error, Problem) else problem_of(cast(EngineError, error))
    return Answer(id, _line(id, problem.status, problem.body()), 0, True)


def _planned(hosted: Hosted, job: Job, line: bytes) -> tuple[Any, list[Plan]]:
    """The reply and the plans of a request. Raises Problem, EngineError."""
    limits = Limits(tokens=1 << 30, sequences=job.max_sequences)
    found = parsed(line)
    if isinstance(found, str):
        found = {"prompt": found}
    chat = str(found.get("url", "")).endswith("/chat/completions")
    body = (
        found.get("body") if "url" in found else {"prompt": found.get("prompt"), "max_tokens": job.max_tokens}
    )
    if not isinstance(body, dict) or found.get("method", "POST") != "POST":
        raise Problem(400, "want a line with a body and the method POST", code="invalid_value")
    if "url" in found and not str(found["url"]).endswith("completions"):
        raise Problem(404, "want the url /v1/chat/completions or /v1/completions", code="not_found")
    data = json.dumps({"model": "model", **body, "stream": None, "stream_options": None}).encode()
    if not chat:
        asks = read(Completion, data)
        plans = plan_completions(hosted.model, asks, job.sampling, limits)
        return CompletionReply(_called(hosted, asks.model), plans, [_texts(plan) for plan in plans]), plans
    asked = read(Chat, data)
    if asked.max_tokens is None and asked.max_completion_tokens is None:
        limits = replace(limits, tokens=job.max_tokens)
    plan = plan_chat(hosted.model, hosted.template, asked, job.sampling, limits)
    return ChatReply(_called(hosted, asked.model), plan, _texts(plan)), [plan]


def _called(hosted: Hosted, name: str) -> Hosted:
    return Hosted(name, hosted.model, hosted.template, 0)


def _texts(plan: Plan) -> Texts:
    return Texts(plan.ids, plan.wishes, count=plan.count)


def _line(id: str, status: int, body: Any) -> bytes:
    """The line of an answer."""
    response = {"status_code": status, "request_id": f"req_{secrets.token_hex(8)}", "body": body}
    error = None if status == 200 else body["error"]
    line = {"id": f"batch_req_{secrets.token_hex(8)}", "custom_id": id, "response": response, "error": error}
    return json.dumps(line, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def _count(path: Path) -> int:
    """Requests in a file. Raises OptionError for a line that is none, and for an id that comes twice."""
    with path.open("rb") as lines:
        ids: set[str] = set()
        for id, _ in _all(lines):
            if id in ids:
                raise OptionError(f"{path}: the id {brief(id, 80)} comes twice; give each request its own")
            ids.add(id)
    return len(ids)


def _all(lines: BinaryIO) -> Iterator[tuple[str, bytes]]:
    """(id, line) of each request; its id is the line's number where it has none. Raises OptionError."""
    for number in itertools.count(1):
        line = lines.readline(LINE + 1)
        if not line:
            return
        if len(line) > LINE:
            raise OptionError(
                f"{lines.name}: line {number} has over {LINE >> 20} MB; want a request or a prompt"
            )
        if not line.strip():
            continue
        try:
            found = parsed(line)
        except ValueError:
            raise OptionError(f"{lines.name}: line {number} is no JSON; want a request or a prompt") from None
        if not isinstance(found, (dict, str)):
            raise OptionError(f"{lines.name}: line {number}: want a request or a prompt")
        id = str(number) if isinstance(found, str) else found.get("custom_id", found.get("id", number))
        yield str(id), line


def _resume(path: Path) -> set[str]:
    """The ids that have an answer.

    A last line that is not whole is cut off. Raises OptionError for a file of another kind.
    """
    known: set[str] = set()
    good = 0
    if not path.exists():
        return known
    with path.open("rb") as lines:
        for line in lines:
            if not line.endswith(b"\n"):
                break
            try:
                known.add(parsed(line)["custom_id"])
            except (ValueError, KeyError, TypeError):
                raise OptionError(
                    f"{path}: it holds something else than answers; name another file"
                ) from None
            good += len(line)
    if good < path.stat().st_size:
        os.truncate(path, good)
    return known
