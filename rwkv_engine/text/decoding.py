"""The decoder of a tokenizer.json as a chain of steps that take one token at a time.

The library decodes whole texts. Each step here outputs what no later token can change, so that the pieces
together equal the library's result. The tests compare the two for every kind of step.
"""

import copy
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import tokenizers

from rwkv_engine.errors import TokenError
from rwkv_engine.system.rust import refusing
from rwkv_engine.text.decoding_pieces import BYTE, ByteRuns, ReplacedPieces, StrippedPieces, of_letters


class Step(Protocol):
    """Tokens in, tokens out; `waiting` counts the tokens that are held back."""

    waiting: int

    def push(self, token: str) -> list[str]:
        """The output that is certain now."""

    def finish(self) -> list[str]:
        """The rest: there are no more tokens."""


class Each:
    """A decoder of the library that handles each token alone; the first may be handled differently."""

    __slots__ = ("_decoder", "_first", "_lead", "waiting")

    def __init__(self, decoder: Any, lead: bool, begun: bool) -> None:
        self._decoder, self._lead, self._first, self.waiting = decoder, lead, not begun, 0

    def push(self, token: str) -> list[str]:
        """See `Step`."""
        alone = self._first or not self._lead
        self._first = False
        return [self._decoder.decode([token] if alone else ["", token])]

    def finish(self) -> list[str]:
        """See `Step`."""
        return []


class Spaced:
    """What the library does without a decoder: it joins tokens with spaces."""

    __slots__ = ("_first", "waiting")

    def __init__(self, begun: bool) -> None:
        self._first, self.waiting = not begun, 0

    def push(self, token: str) -> list[str]:
        """See `Step`."""
        space, self._first = "" if self._first else " ", False
        return [space + token]

    def finish(self) -> list[str]:
        """See `Step`."""
        return []


class LastApart:
    """BPEDecoder: the last token is written differently."""

    __slots__ = ("_decoder", "_held", "waiting")

    def __init__(self, decoder: Any, begun: bool) -> None:
        self._decoder, self._held, self.waiting = decoder, "", 0

    def push(self, token: str) -> list[str]:
        """See `Step`."""
        out = [self._decoder.decode([self._held, ""])] if self.waiting else []
        self._held, self.waiting = token, 1
        return out

    def finish(self) -> list[str]:
        """See `Step`."""
        return [self._decoder.decode([self._held])] if self.waiting else []


class Unrepeated:
    """CTC: repeated tokens count once, and tokens without characters are dropped."""

    __slots__ = ("_before", "_decoder", "waiting")

    def __init__(self, decoder: Any, begun: bool) -> None:
        self._decoder, self._before, self.waiting = decoder, "", 0

    def push(self, token: str) -> list[str]:
        """See `Step`."""
        if token == self._before:
            return []
        self._before = token
        text = self._decoder.decode([token])
        return [text] if text else []

    def finish(self) -> list[str]:
        """See `Step`."""
        return []


class Whole:
    """Any other decoder: nothing is certain before the end."""

    __slots__ = ("_decoder", "_tokens", "waiting")

    def __init__(self, decoder: Any, begun: bool) -> None:
        self._decoder, self.waiting = decoder, 0
        self._tokens: list[str] = []

    def __copy__(self) -> "Whole":
        twin = Whole(self._decoder, False)
        twin._tokens, twin.waiting = list(self._tokens), self.waiting
        return twin

    def push(self, token: str) -> list[str]:
        """See `Step`."""
        self._tokens.append(token)
        self.waiting += 1
        return []

    def finish(self) -> list[str]:
        """See `Step`."""
        return [self._decoder.decode(self._tokens)] if self._tokens else []


_Make = Callable[[bool], Step]


@dataclass(frozen=True, slots=True)
class Plan:
    """How a tokenizer decodes.

    decoder   the library's decoder, or None.
    steps     makes the steps for one text; the argument says whether the text has begun.
    bytewise  whether the output is written in GPT-2's letters for bytes.
    additive  whether a token inside a text is always written the same way.
    falls     whether bytes are written as tokens such as <0xF0>.
    """

    decoder: Any
    steps: tuple[_Make, ...]
    bytewise: bool
    additive: bool
    falls: bool = False

    @property
    def exact(self) -> bool:
        """Whether every token is bytes, whatever stands beside it."""
        return self.bytewise and not self.steps

    def token_bytes(self, piece: str | None) -> bytes:
        """The bytes of one token inside a text."""
        byte = BYTE.fullmatch(piece) if self.falls and piece else None
        if byte:
            return bytes([int(byte[1], 16)])
        if self.exact:
            return self.written([piece or ""])
        decoder = ChainDecoder(self, lambda _: piece, (), True)
        return decoder.push(0) + decoder.finish()

    def written(self, texts: Iterable[str]) -> bytes:
        """The bytes of the steps' output."""
        if not self.bytewise:
            return "".join(texts).encode("utf-8")
        return b"".join(map(of_letters, texts))

    def whole(self, pieces: list[str]) -> bytes:
        """The library's result for a whole text."""
        return (self.decoder.decode(pieces) if self.decoder else " ".join(pieces)).encode("utf-8")


class ChainDecoder:
    """A `Decoder` that sends tokens through the steps of a plan.

    piece  returns the vocabulary's text of an id, or None if it is left out.
    before, begun  as in `Tokenizer.decoder`.
    """

    __slots__ = ("_count", "_owed", "_piece", "_places", "_plan", "_steps", "held")

    def __init__(
        self, plan: Plan, piece: Callable[[int], str | None], before: Sequence[int], begun: bool
    ) -> None:
        self._plan, self._piece, self._count, self.held = plan, piece, 0, 0
        self._steps = [make(begun) for make in plan.steps]
        self._places: list[int] = []
        self._owed = b""
        given = sum(len(self.push(token)) for token in before)
        if self.held:
            pieces = [text for text in map(piece, before) if text is not None]
            with refusing(TokenError, "the tokenizer cannot decode the prompt"):
                self._owed = plan.whole(pieces)[given:]
        self._count, self._places = 0, []

    def push(self, token: int) -> bytes:
        """See `Decoder`."""
        piece = self._piece(token)
        self._count += 1
        out: list[str] = []
        if piece is not None:
            self._places.append(self._count)
            with refusing(TokenError, f"the tokenizer cannot decode token {token}"):
                out = self._through(0, [piece])
        waiting = sum(step.waiting for step in self._steps)
        self._places = self._places[len(self._places) - waiting :] if waiting else []
        self.held = self._count - self._places[0] + 1 if self._places else 0
        return self._fresh(self._plan.written(out))

    def finish(self) -> bytes:
        """See `Decoder`."""
        out: list[str] = []
        with refusing(TokenError, "the tokenizer cannot decode the last tokens"):
            for place, step in enumerate(self._steps):
                out += self._through(place + 1, step.finish())
        self.held = 0
        return self._fresh(self._plan.written(out))

    def fork(self) -> "ChainDecoder":
        """See `Decoder`."""
        twin = copy.copy(self)
        twin._steps, twin._places = list(map(copy.copy, self._steps)), list(self._places)
        return twin

    def _through(self, start: int, tokens: list[str]) -> list[str]:
        """The output of the steps from `start` on."""
        for step in self._steps[start:]:
            tokens = [out for token in tokens for out in step.push(token)]
        return tokens

    def _fresh(self, data: bytes) -> bytes:
        """Those bytes without the ending that the earlier tokens alone would have had."""
        same = next(
            (n for n, (a, b) in enumerate(zip(data, self._owed, strict=False)) if a != b),
            min(len(data), len(self._owed)),
        )
        self._owed = self._owed[same:] if same == len(data) else b""
        return data[same:]


def plan_of(decoder: Any) -> Plan:
    """The plan of a `tokenizers` decoder, or of None."""
    if decoder is None:
        return Plan(None, (Spaced,), False, True)
    chain = _flat(json.loads(decoder.__getstate__()))
    falls = any(spec["type"] == "ByteFallback" for spec in chain)
    steps: list[_Make] = []
    for place, spec in enumerate(chain):
        kind, behind = spec["type"], [s for s in chain[place + 1 :] if s["type"] != "Fuse"]
        if kind == "ByteLevel" and not behind:
            return Plan(decoder, tuple(steps), True, _additive(chain), falls)
        pieces = [_pieces(s) for s in behind]
        if kind == "Fuse" and None not in pieces:
            return Plan(decoder, (*steps, *filter(None, pieces)), False, _additive(chain), falls)
        if kind not in _STEPS:
            whole = _library({"type": "Sequence", "decoders": chain[place:]})
            return Plan(decoder, (*steps, partial(Whole, whole)), False, False, falls)
        steps.append(_STEPS[kind](_library(spec)))
    return Plan(decoder, tuple(steps), False, _additive(chain), falls)


_STEPS: dict[str, Callable[[Any], _Make]] = {
    "Metaspace": lambda decoder: partial(Each, decoder, True),
    "WordPiece": lambda decoder: partial(Each, decoder, True),
    "Replace": lambda decoder: partial(Each, decoder, False),
    "Strip": lambda decoder: partial(Each, decoder, False),
    "BPEDecoder": lambda decoder: partial(LastApart, decoder),
    "CTC": lambda decoder: partial(Unrepeated, decoder),
    "ByteFallback": lambda decoder: ByteRuns,
}


def _pieces(spec: dict[str, Any]) -> _Make | None:
    """The step that replaces a decoder behind one that joins all tokens, or None: it needs the whole token."""
    if spec["type"] == "Strip":
        return partial(StrippedPieces, spec["content"], spec["start"], spec["stop"])
    pattern = spec.get("pattern", {}).get("String")
    return partial(ReplacedPieces, pattern, spec["content"]) if pattern else None


def _additive(chain: list[dict[str, Any]]) -> bool:
    """Whether no step looks at a token's neighbours, except at the beginning of a text."""
    return all(
        spec["type"] in ("Metaspace", "WordPiece", "ByteFallback", "ByteLevel", "Fuse")
        or (spec["type"] == "Strip" and spec["stop"] == 0)
        or (spec["type"] == "Replace" and len(spec["pattern"].get("String", "")) == 1)
        for spec in chain
    )


def _flat(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The decoders of a sequence, nested sequences included."""
    if spec["type"] != "Sequence":
        return [spec]
    return [one for inner in spec["decoders"] for one in _flat(inner)]


def _library(spec: dict[str, Any]) -> Any:
    """The library's decoder for a description."""
    model = {"type": "BPE", "vocab": {}, "merges": []}
    return tokenizers.Tokenizer.from_str(
        json.dumps({"version": "1.0", "model": model, "decoder": spec})
    ).decoder
