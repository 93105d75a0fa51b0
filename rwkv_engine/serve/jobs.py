"""A file of requests in, a file of answers out: what `rwkv batch` does. Needs nothing of the network.

A request's line is in OpenAI's batch format, `{"custom_id", "method", "url", "body"}`, or `{"prompt"}` with
`"id"` or without, or a JSON string. An answer is one whole line, written at once and in the order in which
texts end, with its request's id. A run that was killed is resumed: the last line, if it is not whole, is cut
off, and ids that are there are not asked again.
"""

import itertools
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from rwkv_engine.errors import EngineError, OptionError, brief
from rwkv_engine.model import Model
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
    """A request under way: its reply, and how many of its texts are not over."""

    id: str
    reply: Any
    left: int


#: most bytes of a request, as for the server
LINE = Limits().body
#: tell(requests done, requests in all, tokens a second)
Tell = Callable[[int, int, float], None]


def run(model: Model, job: Job, tell: Tell = lambda done, total, rate: None) -> Done:
    """Answer all requests that have no answer yet.

    Raises OptionError for files that cannot be read or written.
    """
    done = Done()
    try:
        total, known = _count(job.requests), _resume(job.answers)
        done.before = len(known)
        with job.requests.open("rb") as lines, job.answers.open("ab") as out:
            _work(
                model,
                job,
                _left(lines, known),
                out,
                done,
                lambda rate: tell(done.before + done.answered + done.failed, total, rate),
            )
    except OSError as error:
        raise OptionError(f"{error.filename or job.answers}: {error.strerror or error}") from None
    return done


def _work(
    model: Model, job: Job, waiting: Iterator[tuple[str, bytes]], out: BinaryIO, done: Done,
    tell: Callable[[float], None],
) -> None:  # fmt: skip
    """Keep the batch full until there is nothing left."""
    batch, running = Batch(model, job.max_sequences), dict[int, tuple[_Request, int]]()
    hosted = Hosted("model", model, model.template, 0)
    begun = told = time.monotonic()
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
                    problem = error if isinstance(error, Problem) else problem_of(error)
                    _write(out, found[0], problem.status, problem.body())
                    done.failed += 1
                    continue
            if len(batch) + sum(plan.count for plan in ahead[0][2]) > batch.max_sequences:
                break
            _enter(batch, running, *ahead.pop(), out, done)
        if not len(batch):
            if ahead:
                continue
            return
        for ticket, step in batch.step():
            request, number = running[ticket]
            request.reply.push(number, step)
            done.tokens += 1
            if step.stop is not None:
                del running[ticket]
                request.left -= 1
                if request.left == 0:
                    _write(out, request.id, 200, request.reply.whole())
                    done.answered += 1
        if time.monotonic() - told > 0.2:
            told = time.monotonic()
            tell(done.tokens / (told - begun))


def _enter(
    batch: Batch, running: dict[int, tuple[_Request, int]], id: str, reply: Any, plans: list[Plan], out: BinaryIO,
    done: Done,
) -> None:  # fmt: skip
    """Begin the texts of a request."""
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
    except EngineError as error:
        for ticket in tickets:
            batch.cancel(ticket)
            del running[ticket]
        problem = problem_of(error)
        _write(out, id, problem.status, problem.body())
        done.failed += 1


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


def _write(out: BinaryIO, id: str, status: int, body: Any) -> None:
    """One whole line, at once: a kill leaves the line or a beginning of it, and never two."""
    response = {"status_code": status, "request_id": f"req_{secrets.token_hex(8)}", "body": body}
    error = None if status == 200 else body["error"]
    line = {"id": f"batch_req_{secrets.token_hex(8)}", "custom_id": id, "response": response, "error": error}
    out.write(json.dumps(line, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
    out.flush()


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


def _left(lines: BinaryIO, known: set[str]) -> Iterator[tuple[str, bytes]]:
    return ((id, line) for id, line in _all(lines) if id not in known)


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
