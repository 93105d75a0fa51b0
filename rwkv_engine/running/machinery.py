"""`Machinery`: a checkpoint's weights made ready, and one pass over them; the threads, work arrays and words
that this takes.
"""

from collections.abc import Sequence

import numpy as np

from rwkv_engine import families, memory
from rwkv_engine.checkpoints import Checkpoint
from rwkv_engine.checkpoints.layout_blinkdl import BLINKDL
from rwkv_engine.checkpoints.names import matrices
from rwkv_engine.families.heads import HEAD_VECTORS
from rwkv_engine.families.loader import Loader
from rwkv_engine.families.passes import FINITE, new_words, tell
from rwkv_engine.families.program import arguments, step
from rwkv_engine.formats import FORMATS, own_format
from rwkv_engine.kernels.frozen import Frozen
from rwkv_engine.numbers.shapes import CHUNK, ModelConfig
from rwkv_engine.numbers.tensor import one_at_a_time
from rwkv_engine.running.embedding import Rows
from rwkv_engine.running.team import Team
from rwkv_engine.state import State, touch
from rwkv_engine.system import cpu
from rwkv_engine.system.pages import prefer_large, prefer_small, ranges

#: bytes of weights x tokens of a pass below which one lane runs it: two decode the embedded model in 136 us
#: instead of 194, but keep less than a fifth of that while another process has one of two cores
WORTH_LANES = 16_000_000


class Machinery:
    """What runs a checkpoint. Several threads may use it: passes queue up.

    weights, threads, ram  as in `model.load`.
    family, config         what the checkpoint is.      format  name of the matrices' weight format.
    team                   the lanes.                   owners  arrays whose addresses the weights hold; the
                           first is the embedding.
    weight_bytes           read once in every pass: all but the embedding.
    Raises                 CheckpointError, OptionError.
    """

    def __init__(
        self, checkpoint: Checkpoint, weights: str | None, threads: int | None, ram: int | None
    ) -> None:
        self.config = families.config_of(checkpoint)
        self.family = families.family_of(self.config)
        bounded = memory.estimate(checkpoint, weights, cache=False) if ram is not None else None
        if bounded is not None and ram is not None:
            memory.require(bounded, ram)
        early = ram is None and _lies_ready(checkpoint, weights)
        if early:  # before anything is read: what is once in small pages stays so
            prefer_large(tensor.bits() for tensor in matrices(checkpoint.tensors))
        loader = Loader(one_at_a_time(checkpoint.tensors, stay=early), self.config.layers, weights)
        prepared = self.family.prepare(loader, self.config)
        self.owners, self.format = tuple(loader.owners), loader.format.name
        if ram is None and not early:
            prefer_large(self.owners[1:])
        prefer_small(self.owners[:1])
        self._embedding = Rows.of(self.owners[0], checkpoint.path)
        if self._embedding is not None:
            prepared.ends.emb.at[0] = self._embedding.near.ctypes.data
        left = (
            memory.left_to_the_page_cache(self.owners, bounded, ram)
            if bounded is not None and ram is not None
            else []
        )
        lanes = cpu.lanes() if threads is None else threads
        self.team = Team(lanes, room_for_model(self.config), ranges(left) if left else None)
        self.weight_bytes = sum(array.nbytes for array in self.owners) - loader.unread_bytes
        self._prepared, self._scratch, self._words = (
            prepared,
            self.family.scratch(self.config, prepared, CHUNK),
            new_words(),
        )
        self._lanes = threads
        self._frozen: Frozen | None = None

    def _ready(self) -> Frozen:
        """What the program is called with.

        Made by the first pass, which is the first that needs compiled code, and outside of its turn:
        compiling may be interrupted, and takes half as long to find on disk as all of loading.
        """
        if self._frozen is None:
            frozen = arguments(self.family.planes(self.config), self._prepared, self._scratch, self._words)
            self.team.prepare(step, frozen)
            self._frozen = frozen
        return self._frozen

    def run(
        self,
        tokens: np.ndarray,
        spans: Sequence[int],
        batch: Sequence[State],
        wanted: Sequence[int],
        out: np.ndarray,
        hidden: np.ndarray | None = None,
        kept: Sequence[int] | None = None,
    ) -> bool:
        """One run of the family's program over one or more sequences, whose states' numbers it moves; return
        whether all logits are finite.

        tokens  [T] int64, at most CHUNK, of B sequences one after another.   spans   [B + 1]: sequence b has [spans[b], spans[b + 1]).
        batch   [B] states of this model.                                     wanted  [W]: the tokens whose logits are computed.
        kept    [T]: addresses of blocks of states that become what the state is behind a token; 0: not kept. None: all 0.
        out     [W, V] float32 <- logits.                                     hidden  [W, C] float32 <- what the head read.
        """
        lanes = self._lanes or (None if self.weight_bytes * len(tokens) >= WORTH_LANES else 1)
        frozen = self._ready()

        def one_pass() -> bool:
            rows = tokens if self._embedding is None else self._embedding.read(tokens)
            states = [state.address for state in batch]
            tell(self._words, tokens, rows, spans, states, wanted, out, kept)
            touch(batch)
            self.team.run(step, frozen, lanes=lanes)
            if hidden is not None:
                hidden[:] = self._scratch.h[: len(wanted)]  # left there by `families.ends.project`
            return bool(self._words[FINITE])

        return self.team.turn(one_pass)


def room_for_model(config: ModelConfig) -> int:
    """float32 numbers of private scratch that a lane of this model needs: for a product's inputs, or for one
    head's vectors.
    """
    widest = max(config.width, config.ffn)
    rooms = [format.room(widest, CHUNK) for format in FORMATS.values()]
    return max(*rooms, HEAD_VECTORS * config.head_size)


def _lies_ready(checkpoint: Checkpoint, weights: str | None) -> bool:
    """Whether matrices are run as they lie in the file, so that to look for them reads and converts nothing."""
    return (
        weights in (None, own_format(matrices(checkpoint.tensors)).name)
        and checkpoint.merge is None
        and checkpoint.container in ("safetensors", "packed")
        and checkpoint.layout == BLINKDL.name
    )
