"""`Constraint`: text that must fit a JSON schema, a regular expression or a list of choices, by way of
`llguidance`.

A constraint is a frozen description. `begin` makes a `Guide` of it for one text: before each token the guide
says which tokens may come, and after it takes the token in. The work on grammars is llguidance's; here is
where it meets generation.
"""

import copy
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rwkv_engine.errors import OptionError
from rwkv_engine.system.rust import refusing
from rwkv_engine.text import Tokenizer
from rwkv_engine.writing.guidance import llguidance, vocabulary_of
from rwkv_engine.writing.schema_limits import require_modest

#: white space between the parts of JSON: none, one space, or a new line with an indentation; weak models go
#: on for ever otherwise
WHITE_SPACE = r"(\n {0,16}| )?"
#: within this many tokens of the budget's end, and four times the shortest ending, every token is weighed
#: before it is taken
CLOSE = 64
#: how often, in tokens, the shortest ending is looked up before that
LOOK = 16


@dataclass(frozen=True, slots=True)
class Constraint:
    """What a text must look like. Make one with `json_schema`, `regex` or `choice`.

    kind     "schema", "regex" or "choice", for messages.
    grammar  llguidance's description of the text.
    after    None, or a text such as "</think>": what comes up to it is free, what follows must fit. It may
             begin in the prompt.
    """

    kind: str
    grammar: str
    after: str | None = None

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any] | str, *, after: str | None = None) -> "Constraint":
        """JSON that fits a schema, given as a mapping or as its text.

        Raises OptionError for what llguidance cannot guarantee.
        """
        matcher = llguidance().LLMatcher
        _encodable("schema", schema if isinstance(schema, str) else "")
        try:
            text = schema.removeprefix("\ufeff") if isinstance(schema, str) else json.dumps(schema)
            require_modest(text)
            with refusing(OptionError, "schema: llguidance failed"):
                grammar = matcher.grammar_from_json_schema(text, defaults={"whitespace_pattern": WHITE_SPACE})
        except (TypeError, ValueError, RecursionError) as error:
            raise (
                error
                if isinstance(error, OptionError)
                else OptionError(f"schema: not JSON ({_line(str(error))})")
            ) from None
        return cls._checked("schema", grammar, after)

    @classmethod
    def regex(cls, pattern: str, *, after: str | None = None) -> "Constraint":
        """Text that a regular expression matches from end to end (Rust's syntax: no look-around, no back
        references).
        """
        if not isinstance(pattern, str) or not pattern:
            raise OptionError.of("regex", pattern, "a regular expression")
        _encodable("regex", pattern)
        return cls._checked("regex", llguidance().LLMatcher.grammar_from_regex(pattern), after)

    @classmethod
    def choice(cls, choices: Sequence[str], *, after: str | None = None) -> "Constraint":
        """One of some texts, none of them empty."""
        if (
            isinstance(choices, str)
            or not choices
            or any(not isinstance(text, str) or not text for text in choices)
        ):
            raise OptionError.of("choice", choices, "a list of texts that are not empty")
        _encodable("choice", *choices)
        pattern = "|".join(_quoted(text) for text in choices)
        return cls._checked("choice", llguidance().LLMatcher.grammar_from_regex(f"({pattern})"), after)

    @classmethod
    def _checked(cls, kind: str, grammar: str, after: str | None) -> "Constraint":
        if after is not None and (not isinstance(after, str) or not after):
            raise OptionError.of("after", after, "a text that is not empty, or None")
        _encodable("after", after or "")
        with refusing(OptionError, f"{kind}: llguidance failed"):
            wrong, messages = llguidance().LLMatcher.validate_grammar_with_warnings(grammar)
        if wrong:
            raise OptionError(f"{kind}: {_line(messages[0])}")
        return cls(kind, grammar, after)

    def answer(self, text: str) -> str:
        """The part of a generated text that the constraint is about: all of it, or what follows `after`,
        without white space around.
        """
        return text if self.after is None else text.rpartition(self.after)[2].strip()

    def begin(self, tokenizer: Tokenizer, prompt: bytes = b"", ends: Collection[int] = ()) -> "Guide":
        """A guide for one text in this tokenizer's tokens that goes on from `prompt` (its end is enough).

        ends    ids that end the text, besides the tokenizer's.
        Raises  OptionError for a tokenizer whose tokens look different beside others.
        """
        if not tokenizer.additive:
            raise OptionError(
                f"{self.kind}: the decoder of {tokenizer.name} writes a token by what is beside it, so no text can be held to a form"
            )
        with refusing(OptionError, f"{self.kind}: llguidance failed"):
            return Guide(self, tokenizer, prompt, tokenizer.ends.union(ends))


class Guide:
    """One text under way: which tokens may come next, and whether it is whole.

    `budget` is the number of tokens that may still be written, with the next one; None: no limit. Where a way
    to end the text within the budget is known, a token that would leave none is exchanged for the next one of
    that ending.
    """

    __slots__ = (
        "_after",
        "_alarm",
        "_count",
        "_delimiter",
        "_ending",
        "_endings",
        "_ends_at",
        "_kind",
        "_look",
        "_matcher",
        "_overlong",
        "_tail",
        "_tokenizer",
    )

    def __init__(
        self, constraint: Constraint, tokenizer: Tokenizer, prompt: bytes, ends: frozenset[int]
    ) -> None:
        library = llguidance()
        self._tokenizer, self._kind, self._ends_at = tokenizer, constraint.kind, sorted(ends)
        vocabulary, self._endings = vocabulary_of(tokenizer)
        self._matcher = library.LLMatcher(vocabulary, constraint.grammar, log_level=0)
        self._sound()
        self._after = (constraint.after or "").encode()
        self._delimiter = tokenizer.encode(constraint.after or "")
        if self._after and prompt.rstrip().endswith(self._after.rstrip()):
            self._after = b""
        self._tail = prompt[max(0, len(prompt) - len(self._after) + 1) :] if self._after else b""
        self._overlong: list[tuple[int, bytes]] | None = None
        self._ending: list[int] | None = None
        self._alarm, self._count, self._look = CLOSE, 0, LOOK

    def fork(self) -> "Guide":
        """A copy that goes its own way."""
        twin = copy.copy(self)
        twin._matcher = self._matcher.deep_copy()
        return twin

    @property
    def whole(self) -> bool:
        """Whether the text may end here."""
        return not self._after and bool(self._matcher.is_accepting())

    @property
    def over(self) -> bool:
        """Whether the text is whole and nothing more can come."""
        return self.whole and bool(self._matcher.is_stopped())

    def allowed(self, vocab: int) -> np.ndarray:
        """Which of `vocab` ids may come next, [V] bool.

        The end tokens may where the text is whole. Raises OptionError if none may.
        """
        mask = np.zeros(vocab, np.bool_)
        size = min(self._tokenizer.size, vocab)
        ends = [end for end in self._ends_at if end < vocab]
        if self._after:
            mask[:size] = True
            mask[ends] = False
            mask[self._crossing()] = False
            return mask
        words = np.zeros((1, self._tokenizer.size // 32 + 1), np.int32)
        self._matcher.unsafe_compute_mask_ptr(words.ctypes.data, words.nbytes)
        self._sound()
        mask[:size] = np.unpackbits(words.view(np.uint8), bitorder="little")[:size]
        mask[ends] = self.whole
        if not mask.any():
            raise OptionError(
                f"{self._kind}: no token of this tokenizer can go on with the text; widen the constraint"
            )
        return mask

    def take(self, token: int, budget: int | None) -> int:
        """Take in `token`, which was allowed, or the next one of the known ending; the one that was taken.

        Raises OptionError if, before the first token, the budget is too small for the shortest text that was
        found.
        """
        if budget is not None and self._count == 0:
            self._ending = self._shortest(budget)
            if self._ending is not None and len(self._ending) > budget:
                raise OptionError(
                    f"max_tokens: {budget} is too few for this {self._kind}; the shortest text found has {len(self._ending)}"
                )
        self._count += 1
        if token in self._ends_at or budget is None:
            self._push(token)
            return token
        if budget > self._alarm and self._count % self._look:
            self._push(token)
            self._ending = None
            return token
        return self._weighed(token, budget)

    def _weighed(self, token: int, budget: int) -> int:
        """Take `token` if an ending that fits behind it is found, else the known ending's next token, if one
        is known.
        """
        if self._ending is None:
            self._ending = self._shortest(budget)
        known = self._ending if self._ending is not None and len(self._ending) <= budget else None
        before, after, tail = self._matcher.deep_copy(), self._after, self._tail
        self._push(token)
        if known and known[0] == token:
            self._ending = known[1:]
        elif known is None or len(known) > budget - 1 or not self._ends(known):
            self._ending = self._shortest(budget - 1)
        # where none is found and the end is far, the token stays: one may be found later
        close = budget <= self._alarm if self._ending is None else len(self._ending) > budget - 1
        if known and close:
            self._matcher, self._after, self._tail = before, after, tail
            token = known[0]
            self._push(token)
            self._ending = known[1:]
        # a search that finds nothing takes longest: it is made less and less often
        self._look = LOOK if self._ending is not None else min(2 * self._look, LOOK << 6)
        if self._ending is not None:
            self._alarm = max(self._alarm, CLOSE + 4 * len(self._ending))
        return token

    def _ends(self, known: list[int]) -> bool:
        """Whether an ending that was found before the last token still is one (most often it is: inside a
        string, say).
        """
        if self._after:
            return known[: len(self._delimiter)] == self._delimiter
        there = self._matcher.deep_copy()
        return bool(there.try_consume_tokens(known) == len(known) and there.is_accepting())

    def _shortest(self, budget: int) -> list[int] | None:
        """The shortest ending that is found, or None; one longer than the budget is only looked for a little
        further.
        """
        first = self._delimiter if self._after else []
        rest = self._endings.shortest(self._matcher, max(4 * budget, CLOSE))
        return None if rest is None else first + rest

    def _push(self, token: int) -> None:
        data = self._tokenizer.token_bytes(token)
        if self._after:
            seen = self._tail + data
            if self._after in seen:
                self._after = b""
            else:
                self._tail = seen[max(0, len(seen) - len(self._after) + 1) :]
        elif token not in self._ends_at:
            self._matcher.consume_token(token)
            self._sound()

    def _crossing(self) -> list[int]:
        """Ids that would end `after` and carry on with more than white space: what they carry on with would
        escape the grammar.
        """
        if self._overlong is None:
            last = self._after[-1:]
            pairs = ((i, self._tokenizer.token_bytes(i)) for i in range(self._tokenizer.size))
            self._overlong = [(i, data) for i, data in pairs if last in data[:-1]]
        found = []
        for token, data in self._overlong:
            _, there, behind = (self._tail + data).partition(self._after)
            if there and behind.strip():
                found.append(token)
        return found

    def _sound(self) -> None:
        if self._matcher.is_error():
            raise OptionError(f"{self._kind}: {_line(self._matcher.get_error())}")


def _encodable(what: str, *texts: str) -> None:
    for text in texts:
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise OptionError(f"{what}: a text has a lone surrogate, which no model can write")


def _quoted(text: str) -> str:
    """A regular expression, in Rust's syntax, for just this text."""
    return re.sub(r"[^\w\s]", lambda found: "\\" + found[0] if found[0].isascii() else found[0], text)


def _line(message: str) -> str:
    """A message of llguidance's on one line, without the drawing of where it went wrong."""
    short = re.split(r"\n\s*\d+ \||\n<state", message)[0]
    return " ".join(short.split())[:240]
