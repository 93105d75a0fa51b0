"""Axis letters and the sizes of a model.

The letters used in every shape comment of the project:

    T  tokens of one call        B  sequences of one call      L  layers
    C  width of the model        H  heads                      N  head size (C = H * N)
    F  width of the channel mix  V  vocabulary                 R  width of a low-rank pair
"""

from dataclasses import dataclass

#: most tokens of a pass over the weights: enough to use each weight many times, few enough for the caches
CHUNK = 64
#: a pass of at most so many tokens gives each the numbers that it has alone, bit for bit, in every format
ALIKE = 8


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Sizes of one model, all taken from its tensors' shapes.

    family      the record in `families` that runs it: "v4", "v5", "v6", "v7" or "v7a".
    version     the exact recurrence: "4", "5.0", "5.1", "5.2", "6", "7" or "7a".
    layers      L.
    width       C.
    heads       H; 1 for v4, which has no heads.
    head_size   N; C for v4.
    ffn         F.
    vocab       V.
    """

    family: str
    version: str
    layers: int
    width: int
    heads: int
    head_size: int
    ffn: int
    vocab: int
