"""`Model`: a checkpoint made ready to run, and the verbs that run it."""

from collections.abc import Generator, Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from rwkv_engine.checkpoints import Checkpoint
from rwkv_engine.checkpoints.fingerprint import fingerprint
from rwkv_engine.checkpoints.names import time_state
from rwkv_engine.errors import CheckpointError, StateError, TokenError
from rwkv_engine.numbers.shapes import CHUNK, ModelConfig
from rwkv_engine.running.machinery import Machinery
from rwkv_engine.running.team import behind_this_turn
from rwkv_engine.state import Advance, State, StateLayout, touch
from rwkv_engine.text import Tokenizer, find_tokenizer
from rwkv_engine.text.chat import Template
from rwkv_engine.text.templates import find_template
from rwkv_engine.tools.state_files import open_state, place
from rwkv_engine.writing.constraint import Constraint
from rwkv_engine.writing.generate import Cancel, generate
from rwkv_engine.writing.prefix_cache import PrefixCache
from rwkv_engine.writing.sampling import Sampling
from rwkv_engine.writing.step import Step
from rwkv_engine.writing.writer import Wishes


class Model:
    """One model, read only: its sizes, its tokenizer, and forward passes over states that belong to the
    callers.

    config       sizes.                tokenizer    text <-> ids.     checkpoint  what was read.
    fingerprint  of the checkpoint.    format       name of the matrices' weight format.
    One model serves many threads, each with states of its own: passes queue up, and each uses all lanes.
    """

    __slots__ = (
        "__weakref__",
        "checkpoint",
        "config",
        "fingerprint",
        "format",
        "tokenizer",
        "_initial",
        "_machinery",
    )

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

    @property
    def template(self) -> Template:
        """How conversations with this model are written down: its own way, else the one for its vocabulary."""
        packing = self.checkpoint.packing
        inside = packing.template if packing else None
        return find_template(self.config.vocab, inside, folder=self.checkpoint.files)

    def new_state(self) -> State:
        """A state that has seen nothing: zeros, or the `time_state` of a state-tuned checkpoint."""
        return self._initial.fork()

    def load_state(self, path: str | Path) -> State:
        """The state in a file: what `State.save` wrote, or a tuned `time_state` (.pth or safetensors), with
        which a text begins.

        Raises StateError if it is damaged, of another model, or not finite.
        """
        return open_state(path, self._initial.layout)

    def feed(self, tokens: Iterable[int], state: State, every: bool = False) -> npt.NDArray[np.float32]:
        """Advance `state` over `tokens`; return the logits that follow the last one, or `every` one.

        tokens   one or more ids, each in [0, V).
        state    moved T positions on, in place; fork() it first to keep the old one.
        Returns  [V] float32, or [T, V] with `every`: natural-log scale, not normalised; a fresh array each
                 call.
        Raises   TokenError (empty or out of range: id and position), StateError (made for another model);
                 `state` is then untouched. CheckpointError if the logits stop being finite numbers; the state
                 is then of no more use. An interrupt (ctrl-C) leaves it untouched, moved on, or unusable:
                 everything then refuses it with StateError.
        """
        logits = self._run(tokens, state, every, None)
        return logits if every else logits[0]

    def feed_hidden(
        self, tokens: Iterable[int], state: State, every: bool = False
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """As `feed`, with the vectors that the logits are made of: those of the last layer, behind the last
        norm.

        Returns  (logits, hidden): [V] and [C] float32 after the last token, or [T, V] and [T, C] with
                 `every`; the logits are head.weight [V, C] times hidden.
        Raises   as `feed`.
        """
        ids = self._ids(tokens)
        hidden = np.empty((len(ids) if every else 1, self.config.width), np.float32)
        logits = self._run(ids, state, every, hidden)
        return (logits, hidden) if every else (logits[0], hidden[0])

    def skim(self, tokens: Iterable[int], state: State) -> None:
        """Advance `state` as `feed` does, without computing logits.

        Raises TokenError, StateError; `state` is then untouched.

        Inside another pass of this thread, where the garbage collector or a handler of a signal may call it,
        it is done behind that.
        """
        ids = self._ids(tokens)
        self.own(state)
        advance, nothing = Advance([state], [len(ids)]), np.empty((0, self.config.vocab), np.float32)

        def passes() -> None:
            with advance:
                for start in range(0, len(ids), CHUNK):
                    chunk = ids[start : start + CHUNK]
                    self._machinery.run(chunk, (0, len(chunk)), [state], (), nothing)

        later = behind_this_turn()
        if later is None:
            passes()
        else:
            advance.wait()
            later.append(passes)

    def _run(self, tokens: Iterable[int], state: State, every: bool, hidden: np.ndarray | None) -> np.ndarray:
        """Logits [1, V] after the last token, or [T, V] with `every`; hidden [1 or T, C] is filled, if given."""
        ids = self._ids(tokens)
        self.own(state)
        logits, finite = np.empty((len(ids) if every else 1, self.config.vocab), np.float32), True
        with Advance([state], [len(ids)]):
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

    def feed_batch(
        self,
        batch: Sequence[tuple[Iterable[int], State]],
        wanted: Sequence[bool] | None = None,
        kept: Sequence[Sequence[State]] | None = None,
    ) -> npt.NDArray[np.float32]:
        """Advance many states at once, each over its own tokens: one pass over the weights serves them all.

        batch    pairs (tokens, state) as in `feed`; no state twice.
        wanted   of which sequences the logits are computed; None: of all.
        kept     for each sequence, K >= 0 other states: they become what its state is before its last K tokens, before the last K - 1
                 ... before the last one. None: no state is kept on the way.
        Returns  [W, V] float32: the logits after the last token of each sequence that is wanted; with `kept`, after each of its
                 last K + 1 tokens.
        Raises   as `feed`; all states are then untouched.
        """
        left = [self._ids(tokens) for tokens, _ in batch]
        owners, trails = [state for _, state in batch], kept or [()] * len(batch)
        others = [state for trail in trails for state in trail]
        for state in (*owners, *others):
            self.own(state)
        if len({id(state) for state in (*owners, *others)}) < len(owners) + len(others):
            raise StateError("feed_batch: the same state is given twice; fork() it")
        if any(len(trail) >= max(1, len(ids)) for trail, ids in zip(trails, left, strict=True)):
            raise StateError("feed_batch: a sequence has as many states to keep as tokens; give one less")
        # by sequence and tokens that are left behind it: the row of a token's logits
        asked = [b for b in range(len(batch)) if wanted is None or wanted[b]]
        places = [(b, rest) for b in asked for rest in range(len(trails[b]), -1, -1)]
        row_of, finite = {place: row for row, place in enumerate(places)}, True
        logits = np.empty((len(places), self.config.vocab), np.float32)
        with Advance([*owners, *others], [*map(len, left), *(0 for _ in others)]):
            touch(others)
            while pending := [b for b in range(len(batch)) if len(left[b])][:CHUNK]:
                parts = [
                    left[b][:count]
                    for b, count in zip(pending, _shares([len(left[b]) for b in pending]), strict=True)
                ]
                spans = list(accumulate((len(part) for part in parts), initial=0))
                ends, rows, keep = list[int](), list[int](), [0] * spans[-1]
                for i, b in enumerate(pending):
                    first = len(left[b]) - len(parts[i])
                    for rest in range(min(len(trails[b]), len(left[b]) - 1), first - 1, -1):
                        at = spans[i] + len(left[b]) - 1 - rest
                        if (b, rest) in row_of:
                            ends, rows = [*ends, at], [*rows, row_of[b, rest]]
                        keep[at] = trails[b][len(trails[b]) - rest].address if rest else 0
                    left[b] = left[b][len(parts[i]) :]
                out = np.empty((len(ends), self.config.vocab), np.float32)
                finite &= self._machinery.run(
                    np.concatenate(parts), spans, [owners[b] for b in pending], ends, out, kept=keep
                )
                logits[rows] = out
        for owner, trail in zip(owners, trails, strict=True):
            for rest, state in zip(range(len(trail), 0, -1), trail, strict=True):
                state.position = owner.position - rest
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
        draft: "Model | str | None" = None,
    ) -> Generator[Step, None, None]:
        """Continue `prompt`: an iterator of steps, each a token with the text that it completed.

        prompt        text or token ids. Empty with a new state: begins a document.
        max_tokens    the most tokens to write; None: until the model ends the document or a stop string
                      comes.
        sampling      how tokens are chosen; None: Sampling().
        state         goes on from it, in place; None: a new one. When the iterator ends, or is closed, the
                      state holds the prompt and all tokens that were yielded, without the end token and
                      without what a stop string took back.
        stop          texts before which to stop, also within a token and over several.
        constraint    what the text must look like; it does when the last step's stop is "end" or "complete".
        cancel        a threading.Event, or the like, that ends the text. It is looked at between tokens, and
                      in a prompt every CHUNK tokens; the state then holds what was read and yielded so far.
        prefix_cache  where states after the beginnings of long prompts are kept and found.
        alternatives  how many of the likeliest tokens each step names.
        draft         what drafts tokens, so that a pass can give several; the text stays the same. "ngram" or "auto": the text itself;
                      a small Model of the same vocabulary; None or "none": nothing. Arrays taken from `state` are of no
                      use while the text is written.
        The texts of all steps together are what was written, up to the stop string. Nothing is read before the first
        step is asked for. Raises OptionError, TokenError, and what `feed` raises.
        """
        wishes = Wishes(max_tokens, sampling or Sampling(), stop, constraint, prefix_cache, alternatives)
        return generate(self, prompt, wishes, state, cancel, draft)

    @property
    def vocab(self) -> int:
        """V: ids are from 0 to V - 1."""
        return self.config.vocab

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

    def own(self, state: State) -> None:
        """Raise StateError for a state of another model."""
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
    """What `new_state` forks: the planes' fill, with the checkpoint's `time_state` [H, value, key] where
    there is one.
    """
    state = State.fresh(layout)
    found = {layer: checkpoint.tensors.get(time_state(layer)) for layer in range(config.layers)}
    place(state, {layer: tensor for layer, tensor in found.items() if tensor is not None})
    return state


def _shares(lengths: Sequence[int]) -> list[int]:
    """How many tokens of each sequence go into a pass of CHUNK: all of the short ones, equal shares of the
    long ones.
    """
    shares, room = [0] * len(lengths), CHUNK
    for done, b in enumerate(sorted(range(len(lengths)), key=lengths.__getitem__)):
        shares[b] = min(lengths[b], room // (len(lengths) - done))
        room -= shares[b]
    return shares
