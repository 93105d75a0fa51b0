"""`Fitting`: what a matrix has to do on texts, as sums that do not grow with them."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Fitting:
    """Sums over tokens, float64: of z, a quantized matrix's inputs in a model that is quantized before it, of x,
    its inputs in the float model, and of d, what the stream that it adds to lacks there.

    sums    [cols, cols]: z z'.      moves  [cols, cols]: (x - z) z'.
    wanted  [rows, cols]: d z'; None: it adds to no stream.
    """

    sums: np.ndarray
    moves: np.ndarray
    wanted: np.ndarray | None
