"""`Model`: a checkpoint made ready to run, and the verbs that run it."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import NoReturn

import numpy as np

from rwkv_engine.checkpoints import Checkpoint
from rwkv_engine.checkpoints.fingerprint import fingerprint
from rwkv_engine.checkpoints.names import time_state
from rwkv_engine.errors import CheckpointError, StateError, TokenError
from rwkv_engine.numbers.shapes import CHUNK, ModelConfig
from rwkv_engine.running.machinery import Machinery
from rwkv_engine.state import State, StateLayout
from rwkv_engine.text import Tokenizer, find_tokenizer
from rwkv_engine.tools.state_files import open_state, place
from rwkv_engine.writing.constraint import Constraint
from rwkv_engine.writing.generate import Cancel, Step, generate
from rwkv_engine.writing.prefix_cache import PrefixCache
from rwkv_engine.writing.sampling import Sampling


class Model:
    """One model, read only: its sizes, its tokenizer, and forward passes over states that belong to the callers.

    config       sizes.                tokenizer    text <-> ids.     checkpoint  what was read.
    fingerprint  of the checkpoint.    format       name of the matrices' weight format.
    One model serves many threads, each with states of its own: passes queue up, and each uses all lanes.
    """

    __slots__ = ("checkpoint", "config", "fingerprint", "format", "tokenizer", "_initial", "_machinery")

    def __init__(
        self,
        checkpoint: Checkpoint,
        weights: str | None,
        threads: int | None,
        tokenizer: str | Path | None,
        ram: int | None = None,
    ) -> None:
        m = self._machinery = Machinery(checkpoint, weights, threads, ram)
        self.checkpoint, self.config, self.format = checkpoint, m.config, m.format
        inside = checkpoint.packing.tokenizer if checkpoint.packing else None
        self.tokenizer: Tokenizer = find_tokenizer(m.config.vocab, checkpoint.files, tokenizer, inside)
        self.fingerprint = fingerprint(checkpoint)
        self._initial = _initial_state(
            checkpoint, m.config, StateLayout(m.family.planes(m.config), self.fingerprint)
        )

    @property
    def lanes(self) -> int:
        """The most threads a pass uses."""
        return self._machinery.team.lanes

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights that one decoded token reads: all but the embedding."""
        return self._machinery.weight_bytes

    def new_state(self) -> State:
        """A state that has seen nothing: zeros, or the `time_state` of a state-tuned checkpoint."""
        return self._initial.fork()

    def load_state(self, path: str | Path) -> State:
        """The state in a file: what `State.save` wrote, or a tuned `time_state` (.pth or safetensors), with which a text begins.

        Raises StateError if it is damaged, of another model, or not finite.
        """
        return open_state(path, self._initial.layout)

    def feed(self, tokens: Iterable[int], state: State, every: bool = False) -> np.ndarray:
        """Advance `state` over `tokens`; return the logits that follow the last one, or `every` one.

        tokens   one or more ids, each in [0, V).
        state    moved T positions on, in place; fork() it first to keep the old one.
        Returns  [V] float32, or [T, V] with `every`: natural-log scale, not normalised; a fresh array each call.
        Raises   TokenError (empty or out of range: id and position), StateError (made for another model); `state` is then
                 untouched. CheckpointError if the logits stop being finite numbers; the state is then of no more use.
        """
        logits = self._run(tokens, state, every, None)
        return logits if every else logits[0]

    def feed_hidden(
        self, tokens: Iterable[int], state: State, every: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `feed`, with the vectors that the logits are made of: those of the last layer, behind the last norm.

        Returns  (logits, hidden): [V] and [C] float32 after the last token, or [T, V] and [T, C] with `every`; the logits are
                 head.weight [V, C] times hidden.
        Raises   as `feed`.
        """
        ids = self._ids(tokens)
        hidden = np.empty((len(ids) if every else 1, self.config.width), np.float32)
        logits = self._run(ids, state, every, hidden)
        return (logits, hidden) if every else (logits[0], hidden[0])

    def skim(self, tokens: Iterable[int], state: State) -> None:
        """Advance `state` as `feed` does, without computing logits. Raises TokenError, StateError; `state` is then untouched."""
        ids = self._ids(tokens)
        self._own(state)
        nothing = np.empty((0, self.config.vocab), np.float32)
        for start in range(0, len(ids), CHUNK):
            chunk = ids[start : start + CHUNK]
            self._machinery.run(chunk, (0, len(chunk)), [state], (), nothing)

    def _run(self, tokens: Iterable[int], state: State, every: bool, hidden: np.ndarray | None) -> np.ndarray:
        """Logits [1, V] after the last token, or [T, V] with `every`; hidden [1 or T, C] is filled, if given."""
        ids = self._ids(tokens)
        self._own(state)
        logits, finite = np.empty((len(ids) if every else 1, self.config.vocab), np.float32), True
        for start in range(0, len(ids), CHUNK):
            chunk = ids[start : start + CHUNK]
            last = start + len(chunk) == len(ids)
            wanted: Sequence[int] = range(len(chunk)) if every else (len(chunk) - 1,) if last else ()
            rows = slice(start, start + len(chunk)) if every else slice(0, len(wanted))
            read = None if hidden is None else hidden[rows]
            finite &= self._machinery.run(chunk, (0, len(chunk)), [state], wanted, logits[rows], read)
        if not finite:
            self._blame()
        return logits

    def feed_batch(self, batch: Sequence[tuple[Iterable[int], State]]) -> np.ndarray:
        """Advance many states at once, each over its own tokens: one pass over the weights serves them all.

        batch    pairs (tokens, state) as in `feed`; no state twice.
        Returns  [B, V] float32: the logits after each sequence's last token.
        Raises   as `feed`; all states are then untouched.
        """
        left = [self._ids(tokens) for tokens, _ in batch]
        owners = [state for _, state in batch]
        for state in owners:
            self._own(state)
        if len({id(state) for state in owners}) < len(owners):
            raise StateError("feed_batch: the same state is given twice; fork() it")
        logits, finite = np.empty((len(batch), self.config.vocab), np.float32), True
        while pending := [b for b in range(len(batch)) if len(left[b])][:CHUNK]:
            each = CHUNK // len(pending)
            parts = [left[b][:each] for b in pending]
            spans = list(accumulate((len(part) for part in parts), initial=0))
            done = [i for i, b in enumerate(pending) if len(left[b]) == len(parts[i])]
            out = np.empty((len(done), self.config.vocab), np.float32)
            finite &= self._machinery.run(
                np.concatenate(parts),
                spans,
                [owners[b] for b in pending],
                [spans[i + 1] - 1 for i in done],
                out,
            )
            for row, i in enumerate(done):
                logits[pending[i]] = out[row]
            for b, part in zip(pending, parts, strict=True):
                left[b] = left[b][len(part) :]
        if not finite:
            self._blame()
        return logits

    def generate(
        self,
        prompt: str | Sequence[int] = "",
        *,
        max_tokens: int | None = 256,
        sampling: Sampling | None = None,
        state: State | None = None,
        stop: Sequence[str] = (),
        constraint: Constraint | None = None,
        cancel: Cancel | None = None,
        prefix_cache: PrefixCache | None = None,
        alternatives: int = 0,
    ) -> Iterator[Step]:
        """Continue `prompt`: an iterator of steps, each a token with the text that it completed. See `generate.generate`.

        prompt        text or token ids.
        max_tokens    the most tokens to write; None: until the model or `stop` ends it.
        sampling      how tokens are chosen; None: Sampling().
        state         goes on from it and advances it in place; None: a new one.
        stop          texts before which to stop; the state is then rolled back to before them.
        constraint    what the text must look like.
        cancel        a threading.Event that any thread may set to end this.
        prefix_cache  where states after the beginnings of long prompts are kept and found.
        alternatives  how many of the likeliest tokens each step names.
        """
        return generate(
            self,
            prompt,
            max_tokens=max_tokens,
            sampling=sampling,
            state=state,
            stop=stop,
            constraint=constraint,
            cancel=cancel,
            prefix_cache=prefix_cache,
            alternatives=alternatives,
        )

    def _ids(self, tokens: Iterable[int]) -> np.ndarray:
        """The tokens as int64 [T], checked."""
        if (
            isinstance(tokens, list)
            and len(tokens) == 1
            and type(tokens[0]) is int
            and 0 <= tokens[0] < self.config.vocab
        ):
            return np.array(tokens, np.int64)  # a token in decoding: what follows takes 3 us
        ids = np.asarray(tokens if isinstance(tokens, np.ndarray) else list(tokens))
        if ids.size == 0:
            raise TokenError("feed: no token was given; want one or more")
        if ids.ndim != 1 or ids.dtype.kind not in "iu":
            raise TokenError(
                f"feed: got tokens of shape {list(ids.shape)} and type {ids.dtype}, want a flat list of whole numbers"
            )
        wrong = np.flatnonzero((ids < 0) | (ids >= self.config.vocab))
        if wrong.size:
            at = int(wrong[0])
            raise TokenError(
                f"token {int(ids[at])} at position {at} is out of range; this model has ids 0 to {self.config.vocab - 1}"
            )
        return ids.astype(np.int64)

    def _own(self, state: State) -> None:
        if not isinstance(state, State) or (
            state.layout is not self._initial.layout and state.layout != self._initial.layout
        ):
            raise StateError("the state was made for another model; make one with this model's new_state()")

    def _blame(self) -> NoReturn:
        """CheckpointError for logits that are not finite, naming the tensor that is to blame."""
        for name, tensor in self.checkpoint.tensors.items():
            if not np.isfinite(tensor.float32()).all():
                raise CheckpointError(
                    f"{self.checkpoint.path}: tensor {name} has NaN or infinite weights; get the file again"
                )
        raise CheckpointError(
            f"{self.checkpoint.path}: the logits are not finite though all weights are; try weights='f32', or a fresh state"
        )


def _initial_state(checkpoint: Checkpoint, config: ModelConfig, layout: StateLayout) -> State:
    """What `new_state` forks: the planes' fill, with the checkpoint's `time_state` [H, value, key] where there is one."""
    state = State.fresh(layout)
    found = {layer: checkpoint.tensors.get(time_state(layer)) for layer in range(config.layers)}
    place(state, {layer: tensor for layer, tensor in found.items() if tensor is not None})
    return state
