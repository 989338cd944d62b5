"""Gates of sixteen tokens on vectors, bit for bit those of ``select``.

They are made in float64 with a known error; where that could change a gate in float32, ``select`` makes them anew.
Arrays [K, 16] hold a figure of each chosen expert and token.
"""

import numpy as np
from numpy.typing import NDArray

from moesim.routing.affinities import softmax_denominator
from moesim.routing.exponential import LIMIT_64, exponential_64
from moesim.routing.lanes import LANES
from moesim.routing.select import sigmoid
from moesim.routing.stage_options import stage

# Bound of the relative error of a gate: that of exponentials, with room for the sums and quotients after them.
_ERROR = 1e-13


@stage
def look_up_chosen(
    x: NDArray[np.float32], row: NDArray[np.uint32], best: NDArray[np.int32], id_bits: np.int32,
    chosen: NDArray[np.uint32], logit: NDArray[np.float64],
) -> None:  # fmt: skip
    """Fill ``chosen`` [K, 16] with the experts of the best keys [8 * 16], ``logit`` with their logits in ``x[row]``."""
    id_mask = np.int32(~np.int32(-1 << id_bits))
    for k in range(chosen.shape[0]):
        for lane in range(chosen.shape[1]):
            expert = np.uint32(np.int32(~best[k * LANES + lane]) & id_mask)
            chosen[k, lane] = expert
            logit[k, lane] = np.float64(x[row[lane], expert])


@stage
def order_chosen(
    bias: NDArray[np.float64], lane: int, chosen: NDArray[np.uint32], logit: NDArray[np.float64],
    key: NDArray[np.float64],
) -> None:  # fmt: skip
    """Sort one token's chosen experts by their logits or exact biased scores, ties by lowest id; ``key`` is scratch."""
    for k in range(chosen.shape[0]):
        expert, own, at = chosen[k, lane], logit[k, lane], k
        rank = sigmoid(own) + bias[expert] if bias.shape[0] else own
        while at > 0 and (key[at - 1] < rank or (key[at - 1] == rank and chosen[at - 1, lane] > expert)):
            key[at], chosen[at, lane], logit[at, lane] = key[at - 1], chosen[at - 1, lane], logit[at - 1, lane]
            at -= 1
        key[at], chosen[at, lane], logit[at, lane] = rank, expert, own


@stage
def to_gates(
    x: NDArray[np.float32], row: NDArray[np.uint32], n_tokens: int, use_sigmoid: bool, normalize: bool, scale: float,
    gate: NDArray[np.float64], shift: NDArray[np.float64], total: NDArray[np.float64], sure: NDArray[np.int32],
) -> None:  # fmt: skip
    """Turn the chosen logits in ``gate`` into gates; clear ``sure`` [16] where the error may change one in float32.

    ``x[row]`` are all logits of the tokens. ``shift`` and ``total`` [16] are scratch space.
    """
    top_k = gate.shape[0]
    total[:] = 0.0
    if use_sigmoid:
        for k in range(top_k):
            for lane in range(sure.shape[0]):
                logit = gate[k, lane]
                sure[lane] = sure[lane] if abs(logit) < LIMIT_64 else 0
                small = exponential_64(-abs(logit))
                gate[k, lane] = (1.0 if logit >= 0.0 else small) / (1.0 + small)
                total[lane] += gate[k, lane]
    else:
        # The best expert of all is in the best group, so it is the first chosen.
        for lane in range(sure.shape[0]):
            shift[lane] = gate[0, lane]
        for k in range(top_k):
            for lane in range(sure.shape[0]):
                logit = gate[k, lane] - shift[lane]
                sure[lane] = sure[lane] if logit > -LIMIT_64 else 0
                gate[k, lane] = exponential_64(logit)
                total[lane] += gate[k, lane]
        for lane in range(0 if normalize else n_tokens):
            total[lane] = softmax_denominator(x, row[lane], shift[lane])
    for lane in range(sure.shape[0]):
        total[lane] = scale / total[lane] if normalize or not use_sigmoid else scale
    for k in range(top_k):
        for lane in range(sure.shape[0]):
            own = gate[k, lane] * total[lane]
            gate[k, lane] = own
            same = np.float32(own * (1.0 - _ERROR)) == np.float32(own * (1.0 + _ERROR))
            sure[lane] = sure[lane] if same else 0
