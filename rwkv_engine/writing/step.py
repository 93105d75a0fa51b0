"""`Step`: what comes of one token, for whoever shows or counts it."""

from dataclasses import dataclass, field
from typing import Literal

from rwkv_engine.errors import EngineError

StopReason = Literal["end", "length", "stop", "complete", "cut", "cancelled", "failed"]


@dataclass(frozen=True, slots=True)
class Usage:
    """What a text has taken so far.

    prompt_tokens   tokens of the prompt.
    cached_tokens   how many of these the prefix cache had read before.
    tokens          tokens written, the end token included.
    prompt_seconds  from the first token that was read to the first that was chosen.
    seconds         from the first token that was read to this step.
    drafted         tokens that were read as drafts.
    accepted        drafted tokens that became tokens of the text, and spared a pass each.
    thoughts        how many of `tokens` are the thought in front of an answer; 0 outside of conversations.
    """

    prompt_tokens: int
    cached_tokens: int
    tokens: int
    prompt_seconds: float
    seconds: float
    drafted: int = 0
    accepted: int = 0
    thoughts: int = 0

    @property
    def acceptance(self) -> float:
        """Share of the drafted tokens that were accepted; 0 without drafts."""
        return self.accepted / self.drafted if self.drafted else 0.0

    @property
    def tokens_per_pass(self) -> float:
        """Tokens written for each pass over the weights: 1 without drafts."""
        return self.tokens / (self.tokens - self.accepted) if self.tokens else 1.0

    @property
    def rate(self) -> float:
        """Tokens written in a second, without the first one; 0 before there are two."""
        spent = self.seconds - self.prompt_seconds
        return (self.tokens - 1) / spent if self.tokens > 1 and spent > 0 else 0.0

    @property
    def prompt_rate(self) -> float:
        """Tokens of the prompt read in a second, without those that were cached."""
        read = self.prompt_tokens - self.cached_tokens
        return read / self.prompt_seconds if self.prompt_seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Step:
    """One token.

    token         its id; None on a last step that brought no token: "cancelled", "failed".
    text          what may be shown now. It can be empty (a character or a stop string is not complete yet) or
                  more than the token's own text.
    logprob       natural log-probability that the model gave the token, before penalties, filters and
                  temperature.
    stop          None, or on the last step why it is the last:
                  "end"        the model ended the document; `token` is the end token and was not fed;
                  "length"     `max_tokens` were written;
                  "stop"       a stop string came: it is not shown, and the state is before it;
                  "complete"   with a constraint: the text fits it and nothing more can follow, or the tokens
                               are used up;
                  "cut"        with a constraint: the tokens are used up and the text does not fit it;
                  "cancelled"  somebody ended it;
                  "failed"     in a `Batch`: this text cannot go on, and `error` says why.
    alternatives  pairs (token, logprob) of the likeliest tokens, likeliest first, as many as were asked for.
    usage         tokens and seconds so far.
    error         with "failed", what was raised.
    """

    token: int | None
    text: str
    logprob: float
    usage: Usage = field(compare=False)
    stop: StopReason | None = None
    alternatives: tuple[tuple[int, float], ...] = ()
    error: EngineError | None = None
