"""`Machinery`: a checkpoint's weights, prepared, and one pass over them with its threads and work arrays."""

from collections.abc import Sequence

import numpy as np

from rwkv_engine import families
from rwkv_engine.checkpoints import Checkpoint
from rwkv_engine.checkpoints.layout_blinkdl import BLINKDL
from rwkv_engine.checkpoints.names import matrices
from rwkv_engine.errors import CheckpointError
from rwkv_engine.families.heads import HEAD_VECTORS
from rwkv_engine.families.loader import Loader
from rwkv_engine.families.passes import FINITE, new_words, tell
from rwkv_engine.families.program import arguments, step
from rwkv_engine.formats import FORMATS, own_format, stored_formats
from rwkv_engine.kernels.frozen import Frozen
from rwkv_engine.numbers.shapes import CHUNK, ModelConfig
from rwkv_engine.numbers.tensor import one_at_a_time
from rwkv_engine.running import memory
from rwkv_engine.running.embedding import rows_of
from rwkv_engine.running.team import Team
from rwkv_engine.state import State, touch
from rwkv_engine.system import cpu
from rwkv_engine.system.pages import mapped_file, prefer_large, prefer_small, ranges

#: bytes of weights x tokens below which one thread runs a pass: two decode the embedded model in 136 us
#: instead of 194, but get over five times slower while another process has one of two cores
WORTH_LANES = 16_000_000


class Machinery:
    """Runs a checkpoint. Several threads may use it: passes are queued.

    weights, threads, ram  as in `model.load`.
    family, config         of the checkpoint.
    format                 name of the matrices' weight format.
    team                   the threads.
    owners                 arrays that hold the weights' memory; the first is the embedding.
    weight_bytes           bytes read in every pass: all but the embedding.
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
        if early:  # before anything is read: small pages, once used, stay small
            prefer_large(tensor.bits() for tensor in matrices(checkpoint.tensors))
        loader = Loader(one_at_a_time(checkpoint.tensors, stay=early), self.config.layers, weights)
        prepared = self.family.prepare(loader, self.config)
        self.owners, self.format = tuple(loader.owners), loader.format.name
        tables = [table.owner for table in loader.tables]
        others = [owner for owner in self.owners if all(owner is not table for table in tables)]
        if ram is None and not early:
            prefer_large(others)
        prefer_small(tables)
        self._tables = rows_of(loader.tables, checkpoint.path)
        self._files = list({id(file): file for file in map(mapped_file, self.owners) if file}.values())
        self._path = checkpoint.path
        left = (
            memory.left_to_the_page_cache([*tables[:1], *others], bounded, ram)
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

    def prepare(self) -> Frozen:
        """Compile the program, or load it from disk, if that is not done; its arguments.

        A pass does it outside of the team's turn, because that may be interrupted, and not on loading, because
        finding the program on disk takes half as long as loading.
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
        """One run of the family's program on one or more sequences; updates their states.

        tokens   [T] int64, at most CHUNK, of B sequences one after another.
        spans    [B + 1]: sequence b has tokens [spans[b], spans[b + 1]).
        batch    [B] states of this model.
        wanted   [W]: the tokens whose logits are computed.
        kept     [T]: addresses of state blocks that get a copy of the state after a token; 0: none. None: all
                 0.
        out      [W, V] float32 <- logits.
        hidden   [W, C] float32 <- the input of the head.
        Returns  whether all logits are finite.
        """
        lanes = self._lanes or (None if self.weight_bytes * len(tokens) >= WORTH_LANES else 1)
        frozen = self.prepare()

        def one_pass() -> bool:
            if any(file.changed() for file in self._files):
                raise CheckpointError(
                    f"{self._path} has been changed since it was loaded; load it again, and replace model files by renaming"
                )
            rows = tokens
            for table in self._tables:
                rows = table.read(tokens)
            states = [state.address for state in batch]
            tell(self._words, tokens, rows, spans, states, wanted, out, kept)
            touch(batch)
            self.team.run(step, frozen, lanes=lanes)
            if hidden is not None:
                hidden[:] = self._scratch.h[: len(wanted)]  # written by `families.ends.project`
            return bool(self._words[FINITE])

        return self.team.turn(one_pass)


def room_for_model(config: ModelConfig) -> int:
    """float32 numbers of private scratch per thread, for a product's inputs or one head's vectors."""
    widest = max(config.width, config.ffn)
    rooms = [one.room(widest, CHUNK) for one in (*FORMATS.values(), *stored_formats().values())]
    return max(*rooms, HEAD_VECTORS * config.head_size)


def _lies_ready(checkpoint: Checkpoint, weights: str | None) -> bool:
    """Whether matrices are used exactly as stored in the file, so finding them reads and converts nothing."""
    return (
        weights in (None, own_format(matrices(checkpoint.tensors)).name)
        and checkpoint.merge is None
        and checkpoint.container in ("safetensors", "packed")
        and checkpoint.layout == BLINKDL.name
    )


def not_finite(checkpoint: Checkpoint) -> CheckpointError:
    """The error for logits that are not finite, naming the tensor that is to blame."""
    for name, tensor in checkpoint.tensors.items():
        if not np.isfinite(tensor.float32()).all():
            return CheckpointError(
                f"{checkpoint.path}: tensor {name} has NaN or infinite weights; get the file again"
            )
    return CheckpointError(
        f"{checkpoint.path}: the logits are not finite though all weights are; try weights='f32', or a fresh state"
    )
