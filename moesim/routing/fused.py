"""The router in one pass: from a token's logits to its experts, gates, counts and statistics.

Selection runs on the network of ``top_eight``, scores on the vectors of ``exponential``. The answer is that of
``select``, bit for bit: where a decision hangs on scores (the sum of a group's two best, a bias) and those are known
only within an error, it is taken on the approximate ones if the margin is larger than the error, and otherwise the
token is handed to ``select``.

What it is not made for goes to ``select`` as a whole: more than eight experts per token, float64 logits, groups ranked
by more than two scores, a bias on softmax scores.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from moesim.routing.affinities import FAR_BELOW, affinities_of_row, row_sum, share_lost
from moesim.routing.exponential import ERROR_32, exponentials_32, exponentials_64
from moesim.routing.group_limit import best_two, count_from, keep_groups, merge_groups
from moesim.routing.keys import Groups, load_row, pack, value_bits
from moesim.routing.select import gates_of, select_and_gate, sigmoid
from moesim.routing.top_eight import CHUNK, ID_MASK, LOWEST, finish, sort_chunks

_ONE = np.float32(1.0)
# Scores within this share of each other are too close to tell by float32.
_RELATIVE_MARGIN = 8 * ERROR_32
# Relative error of a gate made of ``exponentials_64``, with room for the sum over the experts.
_GATE_ERROR = 1e-13


class Sums(NamedTuple):
    """What a block of tokens adds to a batch's statistics; empty arrays where they are not asked for.

    ``load`` [E]: selections, weighted. ``affinity`` [E]: affinities that sum to 1 over a token's experts, weighted.
    ``received`` [D]: tokens that each device receives, each once, weighted. ``scalars``: sum over tokens of weight,
    of weight * logsumexp^2 and of weight * gate mass lost.
    """

    load: NDArray[np.float64]
    affinity: NDArray[np.float64]
    received: NDArray[np.float64]
    scalars: NDArray[np.float64]


@njit(cache=True, nogil=True, error_model="numpy")
def softmax_gates(
    row: NDArray[np.float32], ids: NDArray[np.int64], top: float, total: float, scale: float, gates: NDArray[Any]
) -> bool:
    """Write unnormalised softmax gates; return whether the error of ``total`` leaves each float32 as it is."""
    certain = True
    for k in range(ids.shape[0]):
        gate = scale * (math.exp(np.float64(row[ids[k]]) - top) / total)
        gates[k] = gate
        below, above = np.float32(gate * (1.0 - _GATE_ERROR)), np.float32(gate * (1.0 + _GATE_ERROR))
        certain = certain and below == above
    return certain


@njit(cache=True, nogil=True, error_model="numpy")
def order_exactly(
    row: NDArray[np.float32], bias: NDArray[np.float64], chosen: NDArray[np.int64], exact: NDArray[np.float64]
) -> None:
    """Sort the chosen experts by their exact biased scores, ties by lowest id."""
    for k in range(chosen.shape[0]):
        expert = chosen[k]
        key, at = sigmoid(np.float64(row[expert])) + bias[expert], k
        while at > 0 and (exact[at - 1] < key or (exact[at - 1] == key and chosen[at - 1] > expert)):
            exact[at], chosen[at] = exact[at - 1], chosen[at - 1]
            at -= 1
        exact[at], chosen[at] = key, expert


@njit(cache=True, nogil=True, error_model="numpy")
def route_block(
    source: NDArray[Any], encoding: int, bias: NDArray[np.float64], use_sigmoid: bool, groups: Groups, top_groups: int,
    scores_per_group: int, normalize: bool, scale: float, expert_ids: NDArray[np.int32], gates: NDArray[np.float32],
    order: NDArray[np.int64], weight: NDArray[np.float64], device: NDArray[np.int64], sequence_ptr: NDArray[np.int64],
    unbiased_counts: bool, per_sequence: NDArray[np.float64], sums: Sums,
) -> int:  # fmt: skip
    """Route tokens and add to their statistics; return the first token with a NaN or inf logit, or -1.

    Args:
        source: [T, E], the bits of the logits: int32 of float32, uint16 of float16 and bfloat16.
        encoding: ``FLOAT32``, ``FLOAT16`` or ``BFLOAT16`` of ``keys``.
        bias: [E], or empty.
        expert_ids, gates: [T, K], K at most 8, filled; no tokens in ``gates``: not filled.
        order: tokens to take, sequence by sequence.
        weight: [T], copies of each token; empty for no statistics but ``sums.load``, which then counts selections.
        device: [E], device of each expert; empty for none.
        sequence_ptr: sequence s is ``order[sequence_ptr[s]:sequence_ptr[s + 1]]``; the blocks of one batch where the
            tokens have no sequences.
        unbiased_counts: the counts of a sequence's loss are those of the unbiased top-k without groups.
        per_sequence: [S, 4]: weight of the sequence, its tokens (with copies), sum over experts of those counts times
            affinities, max/mean of its expert loads, each token once; no rows: not asked for.
        sums: added to.
    """
    n_experts, top_k, n_groups = source.shape[1], expert_ids.shape[1], groups.ptr.shape[0] - 1
    biased, limited, measured = bias.shape[0] > 0, top_groups < n_groups, weight.shape[0] > 0
    sequences = per_sequence.shape[0] > 0
    bits = np.empty(n_experts, np.int32)
    row = bits.view(np.float32)
    rows = row.reshape((1, n_experts))
    score, power_bits = np.empty(n_experts, np.float32), np.empty(max(n_experts, 2 * n_groups), np.int32)
    power = power_bits.view(np.float32)
    biased_bits = np.empty(n_experts, np.int32)
    biased_score, bias_32 = biased_bits.view(np.float32), bias.astype(np.float32)
    chunk_ptr = groups.chunk_ptr
    flat = np.full(chunk_ptr[-1] * CHUNK, LOWEST, np.int64)
    keys = flat.reshape((chunk_ptr[-1], CHUNK))
    best, half, top = np.empty(CHUNK, np.int64), np.empty(16, np.int64), np.empty(8, np.int64)
    pair_bits = np.empty(2 * n_groups, np.int32)
    pair, pair_score = pair_bits.view(np.float32), np.empty(2 * n_groups, np.float32)
    group_value, ordered = np.empty(n_groups, np.float32), np.arange(n_groups)
    kept, left = ordered[:top_groups], ordered[top_groups:]
    chosen, unrestricted, exact = np.empty(top_k, np.int64), np.empty(top_k, np.int64), np.empty(top_k)
    own_gates, scratch = np.empty(top_k, np.float32), np.empty(top_k)
    gate_rows, bound_bits = own_gates.reshape((1, top_k)), np.empty(1, np.int32)
    bound = bound_bits.view(np.float32)
    wide = np.empty(0 if use_sigmoid or normalize else n_experts)
    wide_bits = np.empty(wide.shape[0], np.int64)
    own_load, counted = np.zeros(n_experts), np.zeros(n_experts)
    own_affinity, met = np.zeros(n_experts), np.full(sums.received.shape[0], -1, np.int64)
    greatest_bias = np.abs(bias).max() if biased else 0.0
    for s in range(sequence_ptr.shape[0] - 1):
        own_weight, length = 0.0, 0
        own_affinity[:] = 0.0
        if sequences:
            own_load[:] = 0.0
            counted[:] = 0.0
        for i in range(sequence_ptr[s], sequence_ptr[s + 1]):
            t = int(order[i])
            if not load_row(source, t, encoding, bits, row):
                return t
            total, logsumexp = 1.0, 0.0
            if biased or measured:
                total, logsumexp = affinities_of_row(row, use_sigmoid, score, power_bits, power)
            if biased:
                for e in range(n_experts):
                    biased_score[e] = score[e] + bias_32[e]
            pack(biased_bits if biased else bits, groups, flat)
            sort_chunks(keys)
            certain, margin = True, 2 * _RELATIVE_MARGIN * (1.0 + greatest_bias)
            # Affinities of a token whose sigmoids vanish are known up to a factor only, which a bias does not share.
            vanished = biased and logsumexp < math.log(FAR_BELOW)
            if limited:
                for g in range(n_groups):
                    first, second = best_two(keys, chunk_ptr[g], chunk_ptr[g + 1])
                    pair_bits[2 * g] = value_bits(first)
                    pair_bits[2 * g + 1] = value_bits(second)
                    if second == LOWEST:
                        pair[2 * g + 1] = np.float32(0.0 if biased else -200.0)
                if scores_per_group == 1:
                    for g in range(n_groups):
                        group_value[g] = pair[2 * g]
                    certain = keep_groups(group_value, margin if biased else -1.0, top_groups, ordered)
                elif biased:
                    for g in range(n_groups):
                        group_value[g] = pair[2 * g] + pair[2 * g + 1]
                    certain = keep_groups(group_value, 2 * margin, top_groups, ordered)
                else:
                    exponentials_32(pair, pair_score, power_bits, power)
                    for g in range(n_groups):
                        a, b = pair_score[2 * g], pair_score[2 * g + 1]
                        group_value[g] = a / (a + _ONE) + b / (b + _ONE)
                    greatest = np.float64(group_value.max())
                    certain = keep_groups(group_value, max(_RELATIVE_MARGIN * greatest, 1e-30), top_groups, ordered)
            for j in range(CHUNK):
                best[j] = LOWEST
            merge_groups(keys, chunk_ptr, kept, best)
            certain = certain and not vanished
            if certain:
                finish(best, half, top)
                for k in range(top_k):
                    chosen[k] = ID_MASK - (top[k] & ID_MASK)
                if biased:
                    bound[0] = biased_score[chosen[top_k - 1]] - np.float32(margin)
                    b = bound_bits[0]
                    lowest = int(np.int32(b ^ ((b >> 31) & ID_MASK))) << 32
                    certain = count_from(keys, chunk_ptr, kept, lowest) == top_k
                    order_exactly(row, bias, chosen, exact)
                if use_sigmoid or normalize:
                    gates_of(row, chosen, use_sigmoid, 0.0, 1.0, normalize, scale, scratch, own_gates)
                else:
                    # The best expert of all is in the best group, so it is the first chosen.
                    highest = np.float64(row[chosen[0]])
                    exponentials_64(row, highest, wide, wide_bits, wide_bits.view(np.float64))
                    total_64 = row_sum(wide)
                    certain = certain and softmax_gates(row, chosen, highest, total_64, scale, own_gates)
            if certain:
                for k in range(top_k):
                    expert_ids[t, k] = chosen[k]
            else:
                select_and_gate(
                    rows, bias, use_sigmoid, groups.ptr, groups.experts, top_groups, scores_per_group, normalize, scale,
                    expert_ids[t : t + 1], gate_rows,
                )  # fmt: skip
                for k in range(top_k):
                    chosen[k] = expert_ids[t, k]
            if gates.shape[0]:
                for k in range(top_k):
                    gates[t, k] = own_gates[k]
            if not measured:
                for k in range(top_k):
                    sums.load[chosen[k]] += 1.0
                continue

            copies = weight[t]
            own_weight += copies
            share = copies / total
            for e in range(n_experts):
                own_affinity[e] += share * np.float64(score[e])
            sums.scalars[1] += copies * logsumexp * logsumexp
            for k in range(top_k):
                unrestricted[k] = chosen[k]
            if limited or biased:
                if biased:
                    pack(bits, groups, flat)
                    sort_chunks(keys)
                    for j in range(CHUNK):
                        best[j] = LOWEST
                    merge_groups(keys, chunk_ptr, kept, best)
                merge_groups(keys, chunk_ptr, left, best)
                finish(best, half, top)
                for k in range(top_k):
                    unrestricted[k] = ID_MASK - (top[k] & ID_MASK)
                sums.scalars[2] += copies * share_lost(chosen, unrestricted, row, score)
            for k in range(top_k):
                sums.load[chosen[k]] += copies
            for k in range(top_k if device.shape[0] else 0):
                d = device[chosen[k]]
                if met[d] != t:
                    met[d] = t
                    sums.received[d] += copies
            if sequences and copies > 0.0:
                length += 1
                for k in range(top_k):
                    own_load[chosen[k]] += 1.0
                    counted[unrestricted[k] if unbiased_counts else chosen[k]] += copies
        if measured:
            sums.scalars[0] += own_weight
            for e in range(n_experts):
                sums.affinity[e] += own_affinity[e]
        if sequences:
            product = 0.0
            for e in range(n_experts):
                product += counted[e] * own_affinity[e]
            per_sequence[s, 0] = own_weight
            per_sequence[s, 1] = length
            per_sequence[s, 2] = product
            per_sequence[s, 3] = own_load.max() * n_experts / (length * top_k) if length else 1.0
    return -1
