"""The slow twins: each family's forward pass in plain float64 numpy, one token at a time, written like the
formulas.
"""

import numpy as np

from . import v4, v5, v6, v7, v7a

_FORWARD = {
    "4": v4.forward,
    "5.0": v5.forward,
    "5.1": v5.forward,
    "5.2": v5.forward,
    "6": v6.forward,
    "7": v7.forward,
    "7a": v7a.forward,
}
#: tests of everything go through these; 7a, whose time mix is 7's, has its own
VERSIONS = tuple(version for version in _FORWARD if version != "7a")


def forward(version, weights, tokens, state=None, group_norm_eps=64e-5):
    """(logits [T, V], state): `weights` BlinkDL's names -> arrays of any float type, `state` planes by name,
    None at the start.
    """
    z = {name: np.asarray(array, np.float64) for name, array in weights.items()}
    state = None if state is None else {name: np.array(plane, np.float64) for name, plane in state.items()}
    return _FORWARD[version](z, list(tokens), state, group_norm_eps)
