"""Auxiliary-loss-free balancing: one bias per expert, nudged by a constant after each batch.

The bias is plain state that the caller holds and hands to ``route``; only the loads of the batch just routed
enter, never those of the batch to come.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim.errors import InputError


def update_bias(bias: ArrayLike, load: ArrayLike, rate: float) -> NDArray[np.float64]:
    """Return ``bias + rate * sign(mean load - load)``, float64 of the bias's shape; sign(0) = 0.

    An expert above the mean of its layer loses ``rate``, one below it gains ``rate``, one exactly at it keeps
    its bias.

    Args:
        bias: [..., E], the bias that routed the batch.
        load: [..., E], selections per expert in that batch; counts or any multiple of them.
        rate: the step (gamma in DeepSeek-V3, where it is 0.001; u in the paper on loss-free balancing).

    Raises:
        InputError: shapes differ, or a load is negative or not finite.

    Source: arXiv:2408.15664 algorithm 1, DeepSeek-V3 section 2.1.2.
    """
    before = np.asarray(bias, dtype=np.float64)
    counts = np.asarray(load, dtype=np.float64)
    if before.shape != counts.shape or before.ndim == 0:
        raise InputError(
            f"bias has shape {before.shape}, load {counts.shape}",
            "load",
            "give one load per bias, [..., experts]",
        )
    if not (np.isfinite(counts).all() and (counts >= 0).all()):
        raise InputError("a load is negative or not finite", "load", "loads are counts of selections")
    # The sum is rounded once (fsum) and compared with E times the load, also rounded once: equal loads give
    # exactly 0 even where their mean has no exact float64.
    total = np.apply_along_axis(math.fsum, -1, counts)[..., None]
    step = rate * np.sign(total - counts.shape[-1] * counts)
    return np.asarray(before + step, dtype=np.float64)
