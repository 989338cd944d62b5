"""Affinities of one token in vectors, their sum and the logsumexp: what statistics and a bias need.

``scores`` has the same in float64 for whole batches.
"""

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from moesim.routing.exponential import exponentials_32
from moesim.routing.select import sigmoid

_ONE = np.float32(1.0)
# Sums of exponentials between which none that matters is near the limits of float32, exp(-87) and exp(87).
FAR_BELOW, FAR_ABOVE = 1e-30, 1e34


# Float64 sums of float32 values: their order, which the vectors choose, moves the last digit of 16 at most.
@njit(cache=True, nogil=True, fastmath={"reassoc", "nsz"})
def row_sum(values: NDArray[Any]) -> float:
    """Sum a row in float64."""
    total = 0.0
    for e in range(values.shape[0]):
        total += np.float64(values[e])
    return total


@njit(cache=True, nogil=True, fastmath={"reassoc", "nsz"}, error_model="numpy")
def to_sigmoids(score: NDArray[np.float32]) -> tuple[float, float]:
    """Turn exponentials into sigmoids; return the sum of either in float64."""
    exponentials, sigmoids = 0.0, 0.0
    for e in range(score.shape[0]):
        exponential = score[e]
        value = exponential / (exponential + _ONE)
        score[e] = value
        exponentials += np.float64(exponential)
        sigmoids += np.float64(value)
    return exponentials, sigmoids


@njit(cache=True, nogil=True, error_model="numpy")
def affinities_of_row(
    row: NDArray[np.float32], use_sigmoid: bool, score: NDArray[np.float32], power_bits: NDArray[np.int32],
    power: NDArray[np.float32],
) -> tuple[float, float]:  # fmt: skip
    """Fill ``score`` with affinities up to a factor; return their sum and the logits' logsumexp.

    Softmax scores are exp(x), sigmoid ones sigmoid(x).
    """
    exponentials_32(row, score, power_bits, power)
    if use_sigmoid:
        exponentials, total = to_sigmoids(score)
    else:
        exponentials = total = row_sum(score)
    # Outside, some exponential that counts may have been cut to the range of float32.
    if not FAR_BELOW < exponentials < FAR_ABOVE:
        return far_affinities(row, use_sigmoid, score)
    return total, math.log(exponentials)


@njit(cache=True, nogil=True, error_model="numpy")
def far_affinities(row: NDArray[np.float32], use_sigmoid: bool, score: NDArray[np.float32]) -> tuple[float, float]:
    """The same for logits whose exponentials may leave the range of float32; where all sigmoids vanish, softmax."""
    top, total, exponentials = -math.inf, 0.0, 0.0
    for x in row:
        top = max(top, np.float64(x))
    vanished = sigmoid(top) < 1e-30
    for e in range(row.shape[0]):
        x = np.float64(row[e])
        shifted = math.exp(x - top)
        value = sigmoid(x) if use_sigmoid and not vanished else shifted
        score[e] = value
        total += value
        exponentials += shifted
    return total, top + math.log(exponentials)


@njit(cache=True, nogil=True, error_model="numpy")
def share_lost(
    chosen: NDArray[np.int64], unrestricted: NDArray[np.int64], row: NDArray[np.float32], score: NDArray[np.float32]
) -> float:
    """Return the share of affinity that the chosen experts lack of the unrestricted ones; 0 for equal logits."""
    same, taken, possible = 0, 0.0, 0.0
    lowest = row[unrestricted[unrestricted.shape[0] - 1]]
    for k in range(chosen.shape[0]):
        same += row[chosen[k]] >= lowest
        taken += np.float64(score[chosen[k]])
        possible += np.float64(score[unrestricted[k]])
    return 0.0 if same == chosen.shape[0] else max(0.0, 1.0 - taken / possible)
