"""`ResponseReply`: a response of /v1/responses, whole or as the events of its stream."""

import secrets
import time
from dataclasses import asdict
from typing import Any

from rwkv_engine.serve.answers import Written
from rwkv_engine.serve.chat import SSE, usage_of
from rwkv_engine.serve.engine import Job
from rwkv_engine.serve.http import to_json
from rwkv_engine.serve.items import Ask
from rwkv_engine.serve.planning import Plan
from rwkv_engine.serve.pool import Hosted
from rwkv_engine.serve.problems import Problem
from rwkv_engine.writing.step import Step

#: by the kind of an item: the kind of its text
TEXTS = {"reasoning": "reasoning_text", "message": "output_text"}


class ResponseReply:
    """A response: a thought if there is one, then a message, then calls of functions.

    In a stream each of them is opened when its first text comes, and closed before the next.
    """

    kind = SSE

    def __init__(self, hosted: Hosted, plan: Plan, job: Job, asks: Ask) -> None:
        self.texts = [Written(hosted.model.tokenizer, plan.prompt, plan.tools, plan.primed)]
        self._job, self._asks, self._model = job, asks, hosted.name
        tag = secrets.token_hex(16)
        self.id, self._ids = f"resp_{tag}", {"reasoning": f"rs_{tag}", "message": f"msg_{tag}"}
        self._created, self._number, self._begun = int(time.time()), 0, False
        # the item that is open, and the place of the next one
        self._open, self._next = "", 0

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
        thought, said, _ = self.texts[0].take()
        for kind, text in (("reasoning", thought), ("message", said)):
            if text:
                out += self._opened(kind)
                more: dict[str, Any] = {"logprobs": []} if kind == "message" else {}
                told = {"delta": text, **more, **self._place()}
                out.append(self._event(f"response.{TEXTS[kind]}.delta", told))
        return b"".join(out)

    def last(self) -> bytes:
        """See `Reply`."""
        out, whole = [], self.whole()
        if not self.texts[0].calls:
            out += self._opened("message")
        out += self._closed()
        for call in whole["output"]:
            if call["type"] == "function_call":
                out += self._called(call)
        end = "response.completed" if whole["status"] == "completed" else "response.incomplete"
        return b"".join([*out, self._event(end, {"response": whole})])

    def failed(self, problem: Problem) -> bytes:
        """See `Reply`."""
        error = {"code": problem.code or "server_error", "message": str(problem)}
        return self._event("response.failed", {"response": {**self._object("failed", []), "error": error}})

    def whole(self) -> dict[str, Any]:
        """See `Reply`."""
        text = self.texts[0]
        status = "completed" if text.reason in ("stop", "tool_calls") else "incomplete"
        said, thought = text.texts()
        output = [self._item("reasoning", status)] if thought else []
        if said or not text.calls:
            output.append(self._item("message", status))
        for call in text.calls:
            about = {"id": f"fc_{call['id'][5:]}", "call_id": call["id"], "type": "function_call"}
            output.append({**about, **call["function"], "status": "completed"})
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

    def _opened(self, kind: str) -> list[bytes]:
        """The events up to where an item of this kind is open."""
        if self._open == kind:
            return []
        out = self._closed()
        self._open = kind
        item = {**self._item(kind, "in_progress"), "content": []}
        out.append(self._event("response.output_item.added", {"output_index": self._next, "item": item}))
        part = {"part": _part(kind, ""), **self._place()}
        out.append(self._event("response.content_part.added", part))
        return out

    def _closed(self) -> list[bytes]:
        """The events that close the item that is open, if one is."""
        kind = self._open
        if not kind:
            return []
        status = "completed" if kind == "reasoning" or self.texts[0].reason != "length" else "incomplete"
        item = self._item(kind, status)
        more: dict[str, Any] = {"logprobs": []} if kind == "message" else {}
        told = {"text": item["content"][0]["text"], **more, **self._place()}
        out = [
            self._event(f"response.{TEXTS[kind]}.done", told),
            self._event("response.content_part.done", {"part": item["content"][0], **self._place()}),
            self._event("response.output_item.done", {"output_index": self._next, "item": item}),
        ]
        self._open, self._next = "", self._next + 1
        return out

    def _called(self, call: dict[str, Any]) -> list[bytes]:
        """The events of a call, which is known only when it is whole."""
        at = {"output_index": self._next}
        self._next += 1
        begun, given = {**call, "arguments": "", "status": "in_progress"}, call["arguments"]
        where = {"item_id": call["id"], **at}
        told = {"arguments": given, "name": call["name"], **where}
        return [
            self._event("response.output_item.added", {"item": begun, **at}),
            self._event("response.function_call_arguments.delta", {"delta": given, **where}),
            self._event("response.function_call_arguments.done", told),
            self._event("response.output_item.done", {"item": call, **at}),
        ]

    def _place(self) -> dict[str, Any]:
        return {"item_id": self._ids[self._open], "output_index": self._next, "content_index": 0}

    def _item(self, kind: str, status: str) -> dict[str, Any]:
        """A thought or a message, as far as it is written."""
        said, thought = self.texts[0].texts()
        part = [_part(kind, said if kind == "message" else thought)]
        item: dict[str, Any] = {"id": self._ids[kind], "type": kind, "content": part}
        more: dict[str, Any] = {"role": "assistant", "status": status}
        if kind == "reasoning":
            more = {"summary": []}
        return {**item, **more}

    def _object(self, status: str, output: list[Any]) -> dict[str, Any]:
        asks = self._asks
        choice = asks.tool_choice
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
            "max_output_tokens": asks.max_output_tokens,
            "metadata": asks.metadata or {},
            "parallel_tool_calls": asks.parallel_tool_calls is not False,
            "previous_response_id": asks.previous_response_id,
            "reasoning": {"effort": asks.reasoning.effort if asks.reasoning else None, "summary": None},
            "store": asks.store is not False,
            "temperature": asks.temperature,
            "text": {
                "format": _told(asks.text.format) if asks.text and asks.text.format else {"type": "text"}
            },
            "tool_choice": "auto"
            if choice is None
            else choice
            if isinstance(choice, str)
            else asdict(choice),
            "tools": [asdict(tool) for tool in asks.tools or ()],
            "top_p": asks.top_p,
            "truncation": "disabled",
            "usage": None,
        }

    def _event(self, kind: str, told: dict[str, Any]) -> bytes:
        self._number += 1
        data = {"type": kind, "sequence_number": self._number - 1, **told}
        return f"event: {kind}\ndata: ".encode() + to_json(data) + b"\n\n"


def _told(form: Any) -> dict[str, Any]:
    """A form as it was asked for."""
    return {name: value for name, value in asdict(form).items() if value is not None}


def _part(kind: str, text: str) -> dict[str, Any]:
    more: dict[str, Any] = {"annotations": [], "logprobs": []} if kind == "message" else {}
    return {"type": TEXTS[kind], "text": text, **more}
