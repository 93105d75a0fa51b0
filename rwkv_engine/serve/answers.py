"""`Written`: one text as it is written, told apart into what is thought, said and called."""

from collections.abc import Sequence
from typing import Any

from rwkv_engine.serve.tools import calls_in, may_be_call
from rwkv_engine.text import Tokenizer
from rwkv_engine.text.thinking import Thinking
from rwkv_engine.writing.step import Step

#: why a text ended, in OpenAI's words
REASONS = {
    "end": "stop",
    "stop": "stop",
    "complete": "stop",
    "length": "length",
    "cut": "length",
    "cancelled": "length",
}


class Written:
    """One text under way.

    prompt  what it goes on from: thinking may begin there. None: all is said, as in a plain completion.
    tools   names of the functions that may be called.    primed  whether the prompt has opened a call.
    tops    alternatives to be told with each token; None: no probabilities.
    """

    __slots__ = (
        "_call", "_held", "_names", "_primed", "_split", "_tops", "_tokenizer", "calls", "content", "fresh", "logprobs",
        "reason", "said", "tagged", "thought", "thoughts", "tokens",
    )  # fmt: skip

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt: str | None = None,
        tools: Sequence[str] = (),
        primed: bool = False,
        tops: int | None = None,
    ) -> None:
        self._tokenizer, self._names, self._primed, self._tops = tokenizer, tools, primed, tops
        self._split = Thinking(prompt) if prompt is not None and not primed else None
        self._call: bool | None = (True if primed else None) if tools else False
        self._held = ""
        self.content: list[str] = []
        self.thought: list[str] = []
        self.calls: list[dict[str, Any]] = []
        self.logprobs: list[dict[str, Any]] = []
        # what has not been told yet: (thought, said, probabilities)
        self.fresh: tuple[str, str, list[dict[str, Any]]] = ("", "", [])
        self.reason: str | None = None
        self.tokens = self.thoughts = 0
        self.said = self.tagged = False

    def push(self, step: Step) -> None:
        """Take a step in."""
        thought, said = ("", step.text) if self._split is None else self._split.push(step.text)
        if step.stop is not None and self._split is not None:
            more = self._split.finish()
            thought, said = thought + more[0], said + more[1]
        if step.token is not None:
            self.tokens += 1
            inside = self._split is not None and self._split.inside
            self.thoughts += inside
            if self._tops is not None and step.stop != "end" and not inside and not thought:
                self.logprobs.append(self._probabilities(step))
                self.fresh[2].append(self.logprobs[-1])
        if self._call is not False:
            said = self._without_calls(said, step.stop is not None)
        self.thought.append(thought)
        self.content.append(said)
        self.fresh = self.fresh[0] + thought, self.fresh[1] + said, self.fresh[2]
        if step.stop is not None:
            self.tagged = self._split is not None and self._split.tagged
            self.reason = "tool_calls" if self.calls else REASONS.get(step.stop, "stop")

    def take(self) -> tuple[str, str, list[dict[str, Any]]]:
        """What has not been told yet."""
        fresh, self.fresh = self.fresh, ("", "", [])
        return fresh

    def texts(self) -> tuple[str, str]:
        """(said, thought) so far."""
        return "".join(self.content), "".join(self.thought)

    def _without_calls(self, said: str, over: bool) -> str:
        """What may be shown of an answer that may be a call."""
        self._held += said
        if self._call is None:
            self._call = may_be_call(self._held)
        if over and self._call is not False:
            rest, self.calls = calls_in(self._held, self._names, self._primed)
            return rest
        if self._call is False:
            said, self._held = self._held, ""
            return said
        return ""

    def _probabilities(self, step: Step) -> dict[str, Any]:
        """A token's logarithmic probabilities, in the form of a chat completion."""
        assert step.token is not None
        told = self._one(step.token, step.logprob)
        told["top_logprobs"] = [self._one(*pair) for pair in step.alternatives]
        return told

    def _one(self, token: int, logprob: float) -> dict[str, Any]:
        data = self._tokenizer.token_bytes(token)
        return {
            "token": data.decode("utf-8", "replace"),
            "logprob": max(round(logprob, 6), -9999.0),
            "bytes": list(data),
        }
