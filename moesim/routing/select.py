"""The compiled heart of the router: one pass per token from logits to experts and gates.

Scores, group scores, the group limit, top-k and gates are fused, so that beyond the logits nothing of the
size tokens x experts exists. Everything is computed in float64 whatever the logits are.

Without a bias the order of experts is decided on the logits themselves, which softmax and sigmoid cannot
reorder: affinities that saturate (a sigmoid is exactly 1 above a logit of 37) then create no ties.
``tests/reference/routing.py`` says the same slowly.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.compiling import njit
from moesim.routing.router_spec import KernelKnobs


@njit(cache=True, nogil=True)
def sigmoid(x: float) -> float:
    """Return 1 / (1 + exp(-x)) without overflow on either side."""
    if x >= 0.0:
        return 1.0 / (1.0 + math.exp(-x))
    small = math.exp(x)
    return small / (1.0 + small)


@njit(cache=True, nogil=True)
def keep_best(keys: NDArray[np.float64], ids: NDArray[np.int64], filled: int, key: float, candidate: int) -> int:
    """Insert a candidate into the best so far (highest key, then lowest id, first); return their number."""
    size = keys.shape[0]
    if filled == size:
        last = size - 1
        if key < keys[last] or (key == keys[last] and candidate > ids[last]):
            return filled
    else:
        last = filled
        filled += 1
    while last > 0 and (keys[last - 1] < key or (keys[last - 1] == key and ids[last - 1] > candidate)):
        keys[last] = keys[last - 1]
        ids[last] = ids[last - 1]
        last -= 1
    keys[last] = key
    ids[last] = candidate
    return filled


@njit(cache=True, nogil=True)
def group_value(
    values: NDArray[np.float64], members: NDArray[np.int64], best: NDArray[np.float64], ids: NDArray[np.int64]
) -> float:
    """Sum the ``len(best)`` highest values of the members, or all; ``best`` and ``ids`` are scratch space.

    Summed from the highest down, so that groups with the same scores in another order tie exactly.
    """
    filled = 0
    for expert in members:
        filled = keep_best(best, ids, filled, values[expert], expert)
    total = 0.0
    for i in range(filled):
        total += best[i]
    return total


@njit(cache=True, nogil=True)
def gates_of(
    row: NDArray[Any], ids: NDArray[np.int64], knobs: KernelKnobs, top: float, total: float,
    values: NDArray[np.float64], gates: NDArray[Any],
) -> None:  # fmt: skip
    """Write the gates of one token; ``top`` and ``total`` are its softmax's shift and denominator.

    ``values`` [K] is scratch space.
    """
    use_sigmoid, scale = knobs.use_sigmoid, knobs.scale
    # numba's float() leaves a float32 as it is.
    if not knobs.normalize:
        for k in range(ids.shape[0]):
            x = np.float64(row[ids[k]])
            gates[k] = scale * (sigmoid(x) if use_sigmoid else math.exp(x - top) / total)
        return
    highest = -math.inf
    selected = 0.0
    for expert in ids:
        highest = max(highest, np.float64(row[expert]))
    if use_sigmoid:
        for k in range(ids.shape[0]):
            values[k] = sigmoid(np.float64(row[ids[k]]))
            selected += values[k]
    # Far below zero a sigmoid is exp(x) and underflows; shifted by the highest logit the ratios stay exact.
    if not use_sigmoid or selected < 1e-290:
        selected = 0.0
        for k in range(ids.shape[0]):
            values[k] = math.exp(np.float64(row[ids[k]]) - highest)
            selected += values[k]
    for k in range(ids.shape[0]):
        gates[k] = scale * values[k] / selected


@njit(cache=True, nogil=True)
def select_and_gate(
    logits: NDArray[Any], bias: NDArray[np.float64], knobs: KernelKnobs, group_ptr: NDArray[np.int64],
    group_experts: NDArray[np.int64], expert_ids: NDArray[np.int32], gates: NDArray[Any],
) -> int:  # fmt: skip
    """Fill ``expert_ids[T, K]`` and ``gates[T, K]``; return the first token with a NaN or inf logit, or -1.

    ``bias`` is empty when there is none. Group g is ``group_experts[group_ptr[g]:group_ptr[g + 1]]``.
    """
    n_tokens, n_experts = logits.shape
    top_k = expert_ids.shape[1]
    n_groups = group_ptr.shape[0] - 1
    use_sigmoid, top_groups, scores_per_group = knobs.use_sigmoid, knobs.top_groups, knobs.scores_per_group
    limited = top_groups < n_groups
    biased = bias.shape[0] > 0
    # The maximum of a group keeps its rank on the logits; sums need the scores themselves.
    rank_groups_by_score = limited and scores_per_group > 1
    need_scores = not use_sigmoid or biased or rank_groups_by_score
    scores = np.empty(n_experts)
    keys = np.empty(n_experts)
    best = np.empty(min(scores_per_group, n_experts))
    best_ids = np.empty(best.shape[0], np.int64)
    group_keys = np.empty(top_groups)
    kept_groups = np.arange(top_groups)
    expert_keys = np.empty(top_k)
    chosen = np.empty(top_k, np.int64)
    values_of_gates = np.empty(top_k)
    for t in range(n_tokens):
        row = logits[t]
        top = -math.inf
        for e in range(n_experts):
            x = np.float64(row[e])
            if not math.isfinite(x):
                return t
            keys[e] = x
            if x > top:
                top = x
        total = 0.0
        if need_scores:
            if use_sigmoid:
                for e in range(n_experts):
                    scores[e] = sigmoid(keys[e])
            else:
                for e in range(n_experts):
                    scores[e] = math.exp(keys[e] - top)
                    total += scores[e]
                if biased:
                    for e in range(n_experts):
                        scores[e] /= total
            if biased:
                for e in range(n_experts):
                    scores[e] += bias[e]
                    keys[e] = scores[e]
        if limited:
            filled = 0
            for g in range(n_groups):
                members = group_experts[group_ptr[g] : group_ptr[g + 1]]
                values = scores if rank_groups_by_score else keys
                value = group_value(values, members, best, best_ids)
                filled = keep_best(group_keys, kept_groups, filled, value, g)
        filled = 0
        for i in range(top_groups):
            g = kept_groups[i] if limited else i
            for expert in group_experts[group_ptr[g] : group_ptr[g + 1]]:
                filled = keep_best(expert_keys, chosen, filled, keys[expert], expert)
        for k in range(top_k):
            expert_ids[t, k] = chosen[k]
        gates_of(row, chosen, knobs, top, total, values_of_gates, gates[t])
    return -1


@njit(cache=True, nogil=True)
def affinity_sum(row: NDArray[Any], keys: NDArray[np.float64], count: int, use_sigmoid: bool, shift: float) -> float:
    """Sum the affinities of the first ``count`` logits in ``keys``, up to the token's softmax denominator."""
    total = 0.0
    for k in range(count):
        total += sigmoid(keys[k]) if use_sigmoid else math.exp(keys[k] - shift)
    return total


@njit(cache=True, nogil=True)
def mass_lost(logits: NDArray[Any], expert_ids: NDArray[np.int32], use_sigmoid: bool, lost: NDArray[np.float64]) -> int:
    """Fill ``lost[T]``, see ``gate_mass_lost``; return the first token with a NaN or inf logit, or -1.

    Both sums run from the highest logit down over at most as many terms, so the quotient cannot exceed 1 by
    rounding and is exactly 1 where both selections hold the same logits.
    """
    n_tokens, n_experts = logits.shape
    top_k = expert_ids.shape[1]
    best = np.empty(top_k)
    taken = np.empty(top_k)
    ids = np.empty(top_k, np.int64)
    for t in range(n_tokens):
        row = logits[t]
        filled = 0
        for e in range(n_experts):
            x = np.float64(row[e])
            if not math.isfinite(x):
                return t
            filled = keep_best(best, ids, filled, x, e)
        filled = 0
        for k in range(top_k):
            if expert_ids[t, k] >= 0:
                x = np.float64(row[expert_ids[t, k]])
                filled = keep_best(taken, ids, filled, x, expert_ids[t, k])
        unrestricted = affinity_sum(row, best, top_k, use_sigmoid, best[0])
        selected = affinity_sum(row, taken, filled, use_sigmoid, best[0])
        if unrestricted < 1e-290:
            unrestricted = affinity_sum(row, best, top_k, False, best[0])
            selected = affinity_sum(row, taken, filled, False, best[0])
        lost[t] = 1.0 - selected / unrestricted
    return -1
