"""The forms of /v1/chat/completions and /v1/completions."""

import secrets
import time
from typing import Any

from rwkv_engine.serve.answers import Written
from rwkv_engine.serve.engine import Job
from rwkv_engine.serve.http import to_json
from rwkv_engine.serve.planning import Plan
from rwkv_engine.serve.pool import Hosted
from rwkv_engine.serve.problems import Problem
from rwkv_engine.writing.step import Step

SSE = "text/event-stream; charset=utf-8"


def line(value: Any) -> bytes:
    """An event of a stream."""
    return b"data: " + to_json(value) + b"\n\n"


def usage_of(jobs: list[Job], texts: list[Written]) -> dict[str, Any]:
    """Tokens, in OpenAI's form."""
    read, written = sum(len(job.ids) for job in jobs), sum(text.tokens for text in texts)
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "prompt_tokens_details": {"cached_tokens": sum(job.cached for job in jobs)},
        "completion_tokens_details": {"reasoning_tokens": sum(text.thoughts for text in texts)},
    }


class ChatReply:
    """A chat completion. `usage` asks for it at the end of a stream."""

    kind = SSE

    def __init__(self, hosted: Hosted, plan: Plan, job: Job, usage: bool = False) -> None:
        model = hosted.model
        self.texts = [
            Written(model.tokenizer, plan.prompt, plan.tools, plan.primed, plan.tops)
            for _ in range(plan.count)
        ]
        self._job, self._usage, self._begun = job, usage, [False] * plan.count
        self._told = [False] * plan.count
        self._logprobs = plan.tops is not None
        self._head = _head("chatcmpl", "chat.completion.chunk", hosted)
        self.id = self._head["id"]

    def push(self, number: int, step: Step) -> None:
        """See `Reply`."""
        self.texts[number].push(step)

    def chunks(self) -> bytes:
        """See `Reply`."""
        out = []
        for number, text in enumerate(self.texts):
            thought, said, probabilities = text.take()
            delta: dict[str, Any] = {}
            if not self._begun[number] and (text.tokens or text.reason):
                self._begun[number] = True
                delta = {"role": "assistant", "content": ""}
            if thought:
                delta["reasoning_content"] = thought
            if said:
                delta["content"] = said
            if text.reason and text.calls and not self._told[number]:
                delta["tool_calls"] = [{"index": at, **call} for at, call in enumerate(text.calls)]
            if delta or probabilities:
                out.append(self._chunk(number, delta, probabilities, None))
            if text.reason and not self._told[number]:
                self._told[number] = True
                out.append(self._chunk(number, {}, [], text.reason))
        return b"".join(out)

    def _chunk(self, number: int, delta: dict[str, Any], told: list[Any], reason: str | None) -> bytes:
        logprobs = {"content": told, "refusal": None} if told else None
        choice = {"index": number, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        more = {"usage": None} if self._usage else {}
        return line({**self._head, "choices": [choice], **more})

    def last(self) -> bytes:
        """See `Reply`."""
        end = b"data: [DONE]\n\n"
        if not self._usage:
            return end
        return line({**self._head, "choices": [], "usage": usage_of([self._job], self.texts)}) + end

    def failed(self, problem: Problem) -> bytes:
        """See `Reply`."""
        return line(problem.body()) + b"data: [DONE]\n\n"

    def whole(self) -> dict[str, Any]:
        """See `Reply`."""
        choices = []
        for number, text in enumerate(self.texts):
            said, thought = text.texts()
            message: dict[str, Any] = {"role": "assistant", "content": said, "refusal": None}
            if text.calls:
                message |= {"content": said or None, "tool_calls": text.calls}
            if thought:
                message["reasoning_content"] = thought
            logprobs = {"content": text.logprobs, "refusal": None} if self._logprobs else None
            choices.append(
                {"index": number, "message": message, "logprobs": logprobs, "finish_reason": text.reason}
            )
        usage = usage_of([self._job], self.texts)
        return {**self._head, "object": "chat.completion", "choices": choices, "usage": usage}


class CompletionReply:
    """A plain completion of one or more prompts."""

    kind = SSE

    def __init__(self, hosted: Hosted, plans: list[Plan], jobs: list[Job], usage: bool = False) -> None:
        model = hosted.model
        self.texts = [Written(model.tokenizer, tops=plan.tops) for plan in plans for _ in range(plan.count)]
        self._jobs, self._usage, self._told = jobs, usage, [False] * len(self.texts)
        self._head = _head("cmpl", "text_completion", hosted)
        self.id = self._head["id"]

    def push(self, number: int, step: Step) -> None:
        """See `Reply`."""
        self.texts[number].push(step)

    def chunks(self) -> bytes:
        """See `Reply`."""
        out = []
        for number, text in enumerate(self.texts):
            _, said, probabilities = text.take()
            over = text.reason is not None and not self._told[number]
            if said or probabilities or over:
                self._told[number] |= over
                out.append(line({**self._head, "choices": [self._choice(number, said, probabilities)]}))
        return b"".join(out)

    def last(self) -> bytes:
        """See `Reply`."""
        end = b"data: [DONE]\n\n"
        if not self._usage:
            return end
        return line({**self._head, "choices": [], "usage": usage_of(self._jobs, self.texts)}) + end

    def failed(self, problem: Problem) -> bytes:
        """See `Reply`."""
        return line(problem.body()) + b"data: [DONE]\n\n"

    def whole(self) -> dict[str, Any]:
        """See `Reply`."""
        choices = [
            self._choice(number, text.texts()[0], text.logprobs) for number, text in enumerate(self.texts)
        ]
        return {**self._head, "choices": choices, "usage": usage_of(self._jobs, self.texts)}

    def _choice(self, number: int, said: str, probabilities: list[Any]) -> dict[str, Any]:
        logprobs = None
        if probabilities:
            at, offsets = 0, []
            for token in probabilities:
                offsets.append(at)
                at += len(token["token"])
            logprobs = {
                "tokens": [token["token"] for token in probabilities],
                "token_logprobs": [token["logprob"] for token in probabilities],
                "top_logprobs": [
                    {other["token"]: other["logprob"] for other in token["top_logprobs"]}
                    for token in probabilities
                ],
                "text_offset": offsets,
            }
        reason = self.texts[number].reason
        return {"index": number, "text": said, "logprobs": logprobs, "finish_reason": reason}


def _head(prefix: str, kind: str, hosted: Hosted) -> dict[str, Any]:
    """The fields that every part of one reply has; its id begins with `prefix`."""
    return {
        "id": f"{prefix}-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": hosted.name,
        "system_fingerprint": f"{hosted.model.format}-{hosted.model.fingerprint[:12]}",
    }
