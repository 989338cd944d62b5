"""What every loss and statistic needs to know about a batch, checked once.

A batch that repeats recorded tokens is described by its distinct tokens and how often each occurs, its
weight: results equal those of the batch written out in full, at the price of the distinct tokens only.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim.errors import InputError


def token_weight(weight: ArrayLike | None, n_tokens: int) -> NDArray[np.float64]:
    """Return the copies of each token, float64 [T]; 1 each when no weight is given.

    Raises:
        InputError: another shape, or a weight that is negative or not finite.
    """
    if weight is None:
        return np.ones(n_tokens)
    copies = np.asarray(weight, dtype=np.float64)
    if copies.shape != (n_tokens,):
        raise InputError(f"weights of shape {copies.shape}", "weight", f"give one per token, {n_tokens}")
    if not (np.isfinite(copies).all() and (copies >= 0).all()):
        raise InputError("a weight is negative or not finite", "weight", "weights are numbers of copies")
    return np.ascontiguousarray(copies)


def sequences(sequence_id: ArrayLike, n_tokens: int, copies: NDArray[np.float64]) -> tuple[NDArray[np.int64], int]:
    """Number the sequences that the batch holds: the row of each token [T] (-1: no copies), and how many.

    Raises:
        InputError: not one whole number per token.
    """
    ids = np.asarray(sequence_id)
    if ids.shape != (n_tokens,) or not np.issubdtype(ids.dtype, np.integer):
        raise InputError(
            f"sequence_id has shape {ids.shape} and type {ids.dtype}",
            "sequence_id",
            f"give one whole number per token, {n_tokens}",
        )
    held = copies > 0
    names, numbers = np.unique(ids[held], return_inverse=True)
    row = np.full(n_tokens, -1, dtype=np.int64)
    row[held] = numbers
    return row, len(names)
