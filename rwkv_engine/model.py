"""`Model`: a checkpoint made ready to run, and the verbs that run it."""

from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rwkv_engine.checkpoints import Checkpoint
from rwkv_engine.checkpoints.fingerprint import fingerprint
from rwkv_engine.errors import CheckpointError, StateError, TokenError
from rwkv_engine.numbers.shapes import CHUNK
from rwkv_engine.numbers.token_ids import token_ids
from rwkv_engine.running.cutting import read_cut
from rwkv_engine.running.machinery import Machinery, not_finite
from rwkv_engine.running.scores import mean_hidden, token_logprobs
from rwkv_engine.running.team import behind_this_turn
from rwkv_engine.state import Advance, State, StateLayout, touch
from rwkv_engine.text import Tokenizer, find_tokenizer
from rwkv_engine.text.chat import Template
from rwkv_engine.text.templates import find_template
from rwkv_engine.tools.state_files import initial_state, open_state
from rwkv_engine.writing.constraint import Constraint
from rwkv_engine.writing.generate import Cancel, Progress, generate
from rwkv_engine.writing.prefix_cache import PrefixCache
from rwkv_engine.writing.sampling import Sampling
from rwkv_engine.writing.step import Step
from rwkv_engine.writing.wishes import Wishes


class Model:
    """One model, read only: its sizes, its tokenizer, and forward passes over states that belong to the
    callers.

    config       sizes.                tokenizer    text <-> ids.     checkpoint  what was read.
    fingerprint  of the checkpoint.    format       name of the matrices' weight format.
    One model serves many threads, each with states of its own: passes queue up, and each uses all lanes.
    """

    __slots__ = (
        "__weakref__", "_initial", "_machinery", "_reopen", "checkpoint", "config", "fingerprint", "format", "tokenizer",
    )  # fmt: skip

    def __init__(
        self,
        checkpoint: Checkpoint,
        weights: str | None,
        threads: int | None,
        tokenizer: str | Path | None,
        ram: int | None = None,
        reopen: "Callable[[], Model] | None" = None,
    ) -> None:
        """See `load`. reopen  makes the same model anew in another process; it must be picklable."""
        m = self._machinery = Machinery(checkpoint, weights, threads, ram)
        self.checkpoint, self.config, self.format = checkpoint, m.config, m.format
        inside = checkpoint.packing.tokenizer if checkpoint.packing else None
        self.tokenizer: Tokenizer = find_tokenizer(m.config.vocab, checkpoint.files, tokenizer, inside)
        self.fingerprint, self._reopen = fingerprint(checkpoint), reopen
        self._initial = initial_state(
            checkpoint, m.config, StateLayout(m.family.planes(m.config), self.fingerprint)
        )

    def __repr__(self) -> str:
        c = self.config
        what = f"RWKV-{c.version}, {c.layers} layers of {c.width}, {self.format}, {self.lanes} threads"
        return f"Model({self.checkpoint.path.name!r}: {what})"

    def __reduce__(self) -> tuple[object, ...]:
        """Pickled, a model is its path and options: it is opened again where it is unpickled."""
        if self._reopen is None:
            raise CheckpointError(f"{self.checkpoint.path}: only a model that load() opened can be pickled")
        return self._reopen, ()

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

    def prepare(self) -> None:
        """Compile the program of a pass, or load it from disk, so that the first pass takes no longer."""
        self._machinery.prepare()

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
            raise not_finite(self.checkpoint)
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
        kept     for each sequence, K >= 0 other states: they become what its state is before its last K
                 tokens, before the last K - 1 ... before the last one. None: no state is kept on the way.
        Returns  [W, V] float32: the logits after the last token of each sequence that is wanted; with `kept`,
                 after each of its last K + 1 tokens.
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
        asked = [b for b in range(len(batch)) if wanted is None or wanted[b]]
        with Advance([*owners, *others], [*map(len, left), *(0 for _ in others)]):
            touch(others)
            logits, finite = read_cut(self._machinery, left, owners, trails, asked)
        for owner, trail in zip(owners, trails, strict=True):
            for rest, state in zip(range(len(trail), 0, -1), trail, strict=True):
                state.position = owner.position - rest
        if not finite:
            raise not_finite(self.checkpoint)
        return logits

    def generate(
        self,
        prompt: str | Iterable[int] = "",
        *,
        max_tokens: int | None = 256,
        sampling: Sampling | None = None,
        state: State | None = None,
        stop: str | Iterable[str] | None = None,
        constraint: Constraint | None = None,
        cancel: Cancel | None = None,
        prefix_cache: PrefixCache | None = None,
        alternatives: int = 0,
        draft: "Model | str | None" = None,
        progress: Progress | None = None,
    ) -> Generator[Step, None, None]:
        """Continue `prompt`: an iterator of steps, each a token with the text that it completed.

        prompt        text or token ids. Empty with a new state: begins a document.
        max_tokens    the most tokens to write; None: until the model ends the document, or a stop string.
        sampling      how tokens are chosen; None: Sampling().
        state         goes on from it, in place; None: a new one. When the iterator ends, or is closed, the
                      state holds the prompt and all tokens that were yielded, without the end token and
                      without what a stop string took back.
        stop          a text, or several, before which to stop, also within a token and over several; None: none.
        constraint    what the text must look like; it does when the last step's stop is "end" or "complete".
        cancel        a threading.Event, or the like, that ends the text. It is looked at between tokens, and
                      in a prompt every CHUNK tokens; the state then holds what was read and yielded so far.
        prefix_cache  where states after the beginnings of long prompts are kept and found.
        alternatives  how many of the likeliest tokens each step names.
        draft         what drafts tokens, so that a pass can give several; the text stays the same. "ngram" or
                      "auto": the text itself; a small Model of the same vocabulary; None or "none": nothing.
                      Arrays taken from `state` are of no use while the text is written.
        progress      progress(tokens read, tokens of the prompt): called while a long prompt is read.
        The texts of all steps together are what was written, up to the stop string. Nothing is read before
        the first step is asked for. Raises OptionError, TokenError, and what `feed` raises.
        """
        wishes = Wishes.of(max_tokens, sampling, stop, constraint, prefix_cache, alternatives)
        return generate(self, prompt, wishes, state, cancel, draft, progress)

    def count(self, text: str) -> int:
        """How many tokens a text has. Raises TokenError for what is no text."""
        return len(self.tokenizer.encode(text))

    def score(
        self, text: str | Iterable[int], context: str | Iterable[int] | None = None
    ) -> npt.NDArray[np.float32]:
        """How likely the model finds a text: the natural log-probability of each of its tokens, given all
        before it.

        text     text or token ids.
        context  what is in front of it, which is not scored; None or empty: the text begins a document.
        Returns  [T] float32, for T tokens. Raises TokenError (empty, out of range, or no context for a
                 vocabulary without an end token), and what `feed` raises.
        """
        ids = self._of_text(text, "text")
        start = () if self.tokenizer.end is None else (self.tokenizer.end,)
        context = "" if context is None else context
        given = self.tokenizer.encode(context) if isinstance(context, str) else context
        before = token_ids(given, self.config.vocab, "context")
        before = before if before.size else token_ids(start, self.config.vocab)
        if not before.size:
            raise TokenError("context: want one token or more: no token of this vocabulary begins a document")
        return token_logprobs(self, before, ids)

    def embed(self, texts: str | Iterable[str | Iterable[int]]) -> npt.NDArray[np.float32]:
        """A vector for each text: the mean, over its tokens, of the last layer's output behind the last norm.

        texts    texts or sequences of token ids; a single text is one of them.
        Returns  [N, C] float32, not normalised. Raises TokenError for an empty text, and what `feed` raises.
        """
        if isinstance(texts, (bytes, bytearray)) or not isinstance(texts, Iterable):
            raise TokenError(f"texts: got {type(texts).__name__}, want texts or lists of token ids")
        each = [texts] if isinstance(texts, str) else list(texts)
        ids = [self._of_text(text, f"texts[{number}]") for number, text in enumerate(each)]
        vectors = [mean_hidden(self, one) for one in ids]
        return np.stack(vectors) if vectors else np.empty((0, self.config.width), np.float32)

    @property
    def vocab(self) -> int:
        """V: ids are from 0 to V - 1."""
        return self.config.vocab

    def _ids(self, tokens: Iterable[int], what: str = "tokens") -> np.ndarray:
        """The tokens as int64 [T], checked: one or more."""
        ids = token_ids(tokens, self.config.vocab, what)
        if not ids.size:
            raise TokenError(f"{what}: got none, want one or more")
        return ids

    def _of_text(self, text: str | Iterable[int], what: str) -> np.ndarray:
        """The ids of a text, or those that are given instead. Raises TokenError for none."""
        return self._ids(self.tokenizer.encode(text) if isinstance(text, str) else text, what)

    def own(self, state: State) -> None:
        """Raise StateError for a state of another model."""
        if not isinstance(state, State) or (
            state.layout is not self._initial.layout and state.layout != self._initial.layout
        ):
            raise StateError("the state was made for another model; make one with this model's new_state()")
