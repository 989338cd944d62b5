"""Multi-head latent attention in plain numpy, both ways (DeepSeek-V2, section 2.1): one sequence, causal.

Shapes: latent c, heads n, nope d, rotary r, value v, tokens t. ``query`` [t, n, d + r], ``latents`` [t, c],
``rotary`` [t, r] shared by the heads and already rotated, ``up_key`` [n, d, c], ``up_value`` [n, v, c].
"""

import numpy as np


def unabsorbed(query, latents, rotary, up_key, up_value):
    """Keys and values of every head are made of the latents, then plain attention: [t, n, v]."""
    nope = up_key.shape[1]
    keys = np.einsum("ndc,tc->tnd", up_key, latents)
    values = np.einsum("nvc,tc->tnv", up_value, latents)
    scores = np.einsum("snd,tnd->nst", query[..., :nope], keys) + np.einsum("snr,tr->nst", query[..., nope:], rotary)
    return np.einsum("nst,tnv->snv", _weights(scores, query.shape[-1]), values)


def absorbed(query, latents, rotary, up_key, up_value):
    """The query goes into the latent space, scores against what is cached, and the sum of latents comes out."""
    nope = up_key.shape[1]
    inside = np.einsum("snd,ndc->snc", query[..., :nope], up_key)
    scores = np.einsum("snc,tc->nst", inside, latents) + np.einsum("snr,tr->nst", query[..., nope:], rotary)
    return np.einsum("nvc,snc->snv", up_value, np.einsum("nst,tc->snc", _weights(scores, query.shape[-1]), latents))


def rotation(position, size, base=10_000.0):
    """The rotary position embedding of one position as a matrix [size, size]."""
    turned = np.zeros((size, size))
    for pair in range(size // 2):
        angle = position * base ** (-2 * pair / size)
        at = slice(2 * pair, 2 * pair + 2)
        turned[at, at] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turned


def _weights(scores, head_size):
    scores = np.where(np.tri(scores.shape[-1], dtype=bool), scores / np.sqrt(head_size), -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)
