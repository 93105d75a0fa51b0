"""`Loader`: checks a checkpoint's tensors against the expected shapes and packs them into weight formats."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from rwkv_engine.checkpoints.names import EMBEDDING, HEAD, keeps_its_precision, layer_of, lies_in, matrices
from rwkv_engine.errors import CheckpointError, MissingTensor, WrongShape
from rwkv_engine.formats import format_for, own_format, table_format
from rwkv_engine.numbers.format import Format
from rwkv_engine.numbers.tensor import INFINITE, Tensor


def layers_of(tensors: Mapping[str, Tensor]) -> int:
    """L: the highest block number plus one."""
    numbers = (layer_of(name) for name in tensors)
    return 1 + max((number for number in numbers if number is not None), default=-1)


def find(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    """The tensor with this name; MissingTensor if there is none."""
    if name not in tensors:
        raise MissingTensor(
            f"tensor {name} is missing from the checkpoint; it is incomplete or of another kind", name=name
        )
    return tensors[name]


def matrix_shape(tensors: Mapping[str, Tensor], name: str) -> tuple[int, int]:
    """The two axis lengths of a matrix; WrongShape if the tensor is not a matrix."""
    shape = find(tensors, name).shape
    if len(shape) != 2 or 0 in shape:
        raise _wrong(name, shape, "a matrix")
    return shape[0], shape[1]


class Table(NamedTuple):
    """A matrix [V, ...] of which a token reads one row. owner  holds it at the address at[layer]."""

    owner: np.ndarray
    at: np.ndarray
    layer: int


class Loader:
    """Reads the tensors of one checkpoint into stacked vectors and packed matrices.

    tensors  BlinkDL's names.
    layers   L.
    weights  name of the matrices' format, or None for the checkpoint's own; `format` is the one that it comes
             to.
    owners   arrays whose addresses the matrices hold: they must live as long as the weights are used.
    tables   what a token reads one row of: the embedding first.
    unread_bytes  of the owners, how many a token does not read: tables, of which it reads one row, and
                  empty places.
    """

    def __init__(self, tensors: Mapping[str, Tensor], layers: int, weights: str | None) -> None:
        self.tensors = tensors
        self.layers = layers
        self.format = format_for(matrices(tensors), weights)
        self.owners: list[np.ndarray] = []
        self.tables: list[Table] = []
        self.unread_bytes = 0

    def vector(self, name: str, *shape: int) -> np.ndarray:
        """One tensor as float32 of `shape`; WrongShape if the number of elements differs."""
        tensor = _plain(find(self.tensors, name))
        if prod(tensor.shape) != prod(shape):
            raise _wrong(name, tensor.shape, f"{prod(shape)} elements as {list(shape)}")
        return tensor.float32().reshape(shape)

    def vectors(self, suffix: str, *shape: int) -> np.ndarray:
        """[L, *shape] float32: tensor `blocks.N.<suffix>` of every layer."""
        return np.stack([self.vector(f"blocks.{layer}.{suffix}", *shape) for layer in range(self.layers)])

    def norm(self, name: str, width: int) -> np.ndarray:
        """[2, C] float32: weight and bias of a norm; a model may have no biases."""
        return np.stack(
            [self.vector(f"{name}.weight", width), self._bias(name, ["blocks.0.ln1", name], width)]
        )

    def norms(self, suffix: str, width: int) -> np.ndarray:
        """[L, 2, C] float32: weight and bias of a norm of every layer; a model may have no biases."""
        names = [f"blocks.{layer}.{suffix}" for layer in range(self.layers)]
        biases = [self._bias(name, names, width) for name in names]
        return np.stack([self.vectors(f"{suffix}.weight", width), np.stack(biases)], axis=1)

    def mixes(self, suffixes: Sequence[str], width: int, complement: bool = False) -> np.ndarray:
        """[L, K, C] float32: the previous token's share of K inputs (v4 and v5 store 1 minus it)."""
        stacked = np.stack([self.vectors(suffix, width) for suffix in suffixes], axis=1)
        return np.float32(1) - stacked if complement else stacked

    def embedding(self, rows: int, cols: int) -> Any:
        """The embedding [V, C], read row by row as the checkpoint has it."""
        return self._table([self._checked(EMBEDDING, rows, cols)])

    def rows(self, suffix: str, rows: int, cols: int) -> Any:
        """Tables `blocks.N.<suffix>` [V, cols] of every layer, read row by row as the embedding is."""
        return self._table([self._checked(f"blocks.{n}.{suffix}", rows, cols) for n in range(self.layers)])

    def _table(self, tensors: Sequence[Tensor]) -> Any:
        plain = [_plain(tensor) for tensor in tensors]
        packed = self._keep(table_format(plain, self.format).pack(plain))
        owners = self.owners[-len(tensors) :]
        self.tables += [Table(owner, packed.at, layer) for layer, owner in enumerate(owners)]
        self.unread_bytes += sum(owner.nbytes for owner in owners)
        return packed

    def head(self, rows: int, cols: int) -> Any:
        """The head [V, C] in the model's format, or in its own if `keeps_its_precision` says so."""
        tensor = self._checked(HEAD, rows, cols)
        if self.format.quantized and tensor.format is None and keeps_its_precision(HEAD, tensor):
            return self.small([tensor])
        return self._keep(self.format.pack([tensor]))

    def matrices(self, suffix: str, rows: int, cols: int) -> Any:
        """The matrices `blocks.N.<suffix>` [rows, cols] of every layer in the model's format."""
        tensors = [self._checked(f"blocks.{n}.{suffix}", rows, cols) for n in range(self.layers)]
        form = lies_in(f"blocks.0.{suffix}", self.format)
        if all(
            tensor.format is self.format for tensor in tensors
        ):  # a file of before, which is used as it is
            form = self.format
        return self._keep(form.pack(tensors))

    def low_rank_in(self, suffix: str, width: int, first: int = 0) -> Any:
        """First halves [C, R] of low-rank pairs, transposed to [R, C]; layers from `first` on."""
        tensors = self._pair(suffix, first)
        rank = tensors[0].shape[1] if len(tensors[0].shape) == 2 else 0
        names = [f"blocks.{n}.{suffix}" for n in range(first, self.layers)]
        turned = [transposed(self._checked(name, width, rank)) for name in names]
        packed = self.small(turned)
        _require_finite(turned, self.owners[-len(turned) :], self._small(turned))
        return packed

    def low_rank_out(self, wanted: Sequence[tuple[str, int]], width: int, heads: int) -> list[Any]:
        """Second halves [R, C] of low-rank pairs that one stage reads together, split by heads.

        wanted  (suffix, first layer that has it) of each pair.
        """
        shapes = [self._pair(suffix, first)[0].shape for suffix, first in wanted]
        ranks = [shape[0] if shape else 0 for shape in shapes]
        layers = [
            [
                self._checked(f"blocks.{n}.{suffix}", rank, width) if n >= first else None
                for (suffix, first), rank in zip(wanted, ranks, strict=True)
            ]
            for n in range(self.layers)
        ]
        return self.heads(layers, heads)

    def small(self, tensors: Sequence[Tensor]) -> Any:
        """Matrices that keep the checkpoint's own precision."""
        return self._keep(self._small(tensors).pack(tensors))

    def heads(self, layers: Sequence[Sequence[Tensor | None]], heads: int) -> list[Any]:
        """Second halves [R, C] that one stage reads, for each layer, split by heads; see `packed_heads`."""
        tensors = [tensor for layer in layers for tensor in layer if tensor]
        for pair in zip(*layers, strict=True):
            first, *others = (tensor for tensor in pair if tensor)
            for other in others:
                if other.shape != first.shape:
                    raise _wrong(other.name, other.shape, list(first.shape))
        pack_heads = self._small(tensors).pack_heads
        assert pack_heads is not None  # tensors in their stored precision are floats
        pairs, owners = pack_heads(layers, heads)
        _require_finite(tensors, owners, self._small(tensors))
        read = sum(prod(tensor.shape) for tensor in tensors) * owners[0].itemsize
        self.unread_bytes += (
            sum(owner.nbytes for owner in owners) - read
        )  # padding of layers that lack a tensor
        return list(self._keep((pairs, owners)))

    @staticmethod
    def same_rank(name: str, first: int, second: int) -> None:
        """WrongShape unless the two halves of a low-rank pair have the same rank."""
        if first != second:
            raise WrongShape(
                f"the low-rank pair {name}: got ranks {first} and {second}, want equal ones",
                name=name,
                got=(first, second),
            )

    def _bias(self, name: str, alike: Sequence[str], width: int) -> np.ndarray:
        """The bias [C] of a norm: zeros if none of the similar norms `alike` has one."""
        if not any(f"{other}.bias" in self.tensors for other in alike):
            return np.zeros(width, np.float32)
        return self.vector(f"{name}.bias", width)

    def _pair(self, suffix: str, first: int) -> list[Tensor]:
        return [find(self.tensors, f"blocks.{layer}.{suffix}") for layer in range(first, self.layers)]

    def _small(self, tensors: Sequence[Tensor]) -> Format:
        """The checkpoint's own format: low-rank matrices are few and sensitive, and are never quantized."""
        return own_format([_plain(tensor) for tensor in tensors])

    def _checked(self, name: str, rows: int, cols: int) -> Tensor:
        tensor = find(self.tensors, name)
        if tensor.shape != (rows, cols):
            raise _wrong(name, tensor.shape, [rows, cols])
        return tensor

    def _keep(self, packed: tuple[Any, list[np.ndarray]]) -> Any:
        rows, owners = packed
        self.owners += owners
        return rows


def _plain(tensor: Tensor) -> Tensor:
    """The tensor if it holds plain numbers; CheckpointError if it is packed."""
    if tensor.format is not None:
        raise CheckpointError(
            f"tensor {tensor.name}: got a matrix packed in {tensor.format.name}, want plain numbers, as a low-rank half, "
            "an embedding or a vector has them; pack the model again",
            name=tensor.name,
        )
    return tensor


def _require_finite(tensors: Sequence[Tensor], owners: Sequence[np.ndarray], format: Format) -> None:
    """CheckpointError if low-rank halves, held by `owners` in a float format, are not finite.

    Behind them come tanh, sigmoid and exp, which turn an infinity into a number: the logits do not tell.
    """
    endless = INFINITE[format.tag]
    for owner in owners:
        bits = owner.view(endless.dtype)
        if bits.size and (bits & (np.iinfo(bits.dtype).max >> 1)).max() >= endless:
            for tensor in tensors:
                if not np.isfinite(tensor.float32()).all():
                    raise CheckpointError(
                        f"tensor {tensor.name} has NaN or infinite weights; get the file again",
                        name=tensor.name,
                    )


def _wrong(name: str, got: Sequence[int], wanted: Sequence[int] | str) -> WrongShape:
    return WrongShape(
        f"tensor {name}: got shape {list(got)}, want {wanted}", name=name, got=list(got), wanted=wanted
    )


def transposed(tensor: Tensor) -> Tensor:
    """The transposed matrix, not read yet."""
    _plain(tensor)
    return Tensor(tensor.name, tensor.shape[::-1], tensor.dtype, lambda: tensor.bits().T)


def cut(tensor: Tensor, part: Any) -> Tensor:
    """A part of a tensor (by a NumPy index), not read yet."""
    _plain(tensor)
    shape = np.empty(tensor.shape, np.bool_)[part].shape if prod(tensor.shape) else tensor.shape
    return Tensor(tensor.name, shape, tensor.dtype, lambda: tensor.bits()[part])
