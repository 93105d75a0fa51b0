"""Greedy longest match of tokens in bytes: a trie whose edges lie in one hash table, walked byte by byte.

An edge is the number node * 256 + byte; the table has open addressing with linear steps. Twin:
text.world.slow_encode.
"""

import numpy as np

from rwkv_engine.kernels._jit import kernel, program

_FREE = -1


@kernel
def _slot(edge: int, mask: int) -> int:
    """Where the search for an edge begins (Fibonacci hashing)."""
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
    """Fill the trie with tokens whose bytes follow one another in `data` [bytes] u8, `lengths` [count] u8;
    ids count from 1.

    edges, nodes [power of two] int32: the edge in a slot and the node it leads to, edges filled with -1
    before; tokens [nodes] int32, zeros before: the id that ends at a node. Returns the number of nodes, the
    root being 0.
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
    """ids [at least as many as bytes] int32 <- the tokens of `text` [bytes] u8, always the longest that fits;
    returns how many.

    Every single byte is a token, so there always is one. Cost: each byte is looked at about 1.5 times.
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
