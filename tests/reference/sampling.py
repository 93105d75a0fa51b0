"""Sampling in plain numpy and float64, sorting everything: PIPELINE.sample_logits of PyPI's `rwkv` 0.8.32,
with min-p.
"""

import numpy as np


def probabilities(logits, temperature=1.0, top_p=1.0, top_k=0, min_p=0.0):
    """[V] float64: with which probability each token is drawn.

    Of equal tokens at the edge of top-k the first ones stay.
    """
    logits = logits.astype(np.float64)
    p = np.exp(logits - logits.max())
    p /= p.sum()
    order = np.argsort(-p, kind="stable")
    kept = p.copy()
    if top_p < 1:
        likely = p[order]
        kept[p < likely[np.argmax(np.cumsum(likely) >= top_p)]] = 0
    if 0 < top_k < len(p):
        kept[order[top_k:]] = 0
    kept[p < min_p * p.max()] = 0
    weights = np.where(kept > 0, (kept / p.max()) ** (1 / temperature), 0)
    return weights / weights.sum()


def log_probability(logits, token):
    """Natural logarithm of softmax(logits)[token]."""
    logits = logits.astype(np.float64) - logits.max()
    return logits[token] - np.log(np.exp(logits).sum())
