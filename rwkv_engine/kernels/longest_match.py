"""Greedy longest match of tokens in bytes: a trie whose edges are in one hash table, walked byte by byte.

An edge is the number node * 256 + byte; the table uses open addressing with linear probing. Twin:
text.world.slow_encode.
"""

import numpy as np

from rwkv_engine.kernels._jit import kernel, program

_FREE = -1


@kernel
def _slot(edge: int, mask: int) -> int:
    """First slot to probe for an edge (Fibonacci hashing)."""
    return np.int64((np.uint64(edge) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & mask


@kernel
def _find(edges: np.ndarray, edge: int) -> int:
    """The slot that holds `edge`, or the free one where it belongs."""
    mask = edges.shape[0] - 1
    at = _slot(edge, mask)
    while edges[at] != _FREE and edges[at] != edge:
        at = (at + 1) & mask
    return at


@program
def build(
    data: np.ndarray, lengths: np.ndarray, edges: np.ndarray, nodes: np.ndarray, tokens: np.ndarray
) -> int:
    """Fill the trie with tokens; returns the number of nodes. The root is 0, ids count from 1.

    data     [bytes] uint8: the tokens' bytes, one token after another.
    lengths  [count] uint8.
    edges    [power of two] int32, filled with -1: the edge in a slot.
    nodes    [power of two] int32: the node that the edge leads to.
    tokens   [nodes] int32, zeros: the id of the token that ends at a node.
    """
    count, start = 1, 0
    for i in range(lengths.shape[0]):
        node = 0
        for k in range(start, start + lengths[i]):
            edge = np.int32(node * 256 + data[k])
            at = _find(edges, edge)
            if edges[at] == _FREE:
                edges[at] = edge
                nodes[at] = count
                count += 1
            node = nodes[at]
        tokens[node] = i + 1
        start += lengths[i]
    return count


@program
def encode(
    text: np.ndarray, edges: np.ndarray, nodes: np.ndarray, tokens: np.ndarray, ids: np.ndarray
) -> int:
    """ids int32 <- the tokens of `text` [bytes] uint8, always the longest match; returns their number.

    ids has at least one place per byte. Every single byte is a token, so one always matches. Cost: each byte
    is read about 1.5 times.
    """
    count, start = 0, 0
    while start < text.shape[0]:
        node, best, end, k = 0, 0, start + 1, start
        while k < text.shape[0]:
            edge = np.int32(node * 256 + text[k])
            at = _find(edges, edge)
            if edges[at] == _FREE:
                break
            node = nodes[at]
            k += 1
            if tokens[node] != 0:
                best, end = tokens[node], k
        ids[count] = best
        count += 1
        start = end
    return count
