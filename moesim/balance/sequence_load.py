"""The compiled count of expert loads inside each sequence: a million tokens in some ten milliseconds.

``tests/reference/losses.py`` says the same slowly.
"""

import numpy as np
from numpy.typing import NDArray

from moesim.compiling import njit


@njit(cache=True, nogil=True)
def max_over_mean_per_sequence(
    expert_ids: NDArray[np.int32],
    weight: NDArray[np.float64],
    order: NDArray[np.int64],
    sequence_ptr: NDArray[np.int64],
    n_experts: int,
    ratio: NDArray[np.float64],
) -> None:
    """Fill ``ratio[S]``; tokens of sequence s are ``order[sequence_ptr[s]:sequence_ptr[s + 1]]``."""
    load = np.empty(n_experts)
    for s in range(ratio.shape[0]):
        load[:] = 0.0
        total = 0.0
        for i in range(sequence_ptr[s], sequence_ptr[s + 1]):
            token = order[i]
            for expert in expert_ids[token]:
                if expert >= 0:
                    load[expert] += weight[token]
                    total += weight[token]
        # All copies of a sequence dropped: nothing is out of balance.
        ratio[s] = load.max() * n_experts / total if total > 0.0 else 1.0
