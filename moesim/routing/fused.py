"""The router in one pass: from a token's logits to its experts, gates, counts and statistics.

Sixteen tokens go side by side, see ``lanes``: selection runs on the network of ``top_eight``, scores and gates on the
vectors of ``exponential``. The answer is that of ``select``, bit for bit: where a decision hangs on numbers that are
known only within an error (keys that do not hold all bits of a logit, sums of a group's scores, biased scores), it is
taken on those if the margin is larger than the error, and otherwise anew in float64 for that token.

What it is not made for goes to ``select`` as a whole: more than eight experts per token, float64 logits, groups ranked
by more than two scores, a bias on softmax scores.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import moesim.routing.lanes_compiled  # noqa: F401 - the compiled forms of what is in lanes
from moesim.compiling import njit
from moesim.routing.affinities import TOGETHER, add_affinities, scores_of_row, share_lost, sums_of_row
from moesim.routing.gates import look_up_chosen, order_chosen, to_gates
from moesim.routing.group_limit import GroupWork, confirm_bound, confirm_order, leave_out, limit_groups, rank_exactly
from moesim.routing.keys import FLOAT32, Bias, Groups, id_bits_of, is_short, load_row, pack_biased_row, pack_rows
from moesim.routing.lanes import turn
from moesim.routing.plain_pass import Sums
from moesim.routing.router_spec import KernelKnobs
from moesim.routing.select import select_and_gate
from moesim.routing.stage_options import stage
from moesim.routing.tokens import count_chosen, exact_free, fetch_ahead, next_tokens, write_tokens
from moesim.routing.top_eight import CHUNK, LOWEST, ROWS, merge_chunks, merge_columns, sort_chunks


class Selection(NamedTuple):
    """Scratch space of the selection: keys [chunks, 32 * 16] and all of them in a row, with sixteen for no expert.

    ``tops`` [chunks, 8 * 16]: the eight best of each chunk; ``best`` and ``free`` [8 * 16]: of the groups that a token
    may reach, and of all.
    """

    flat: NDArray[np.int32]
    keys: NDArray[np.int32]
    pairs: NDArray[np.int32]
    tops: NDArray[np.int32]
    best: NDArray[np.int32]
    free: NDArray[np.int32]
    counted: NDArray[np.float32]
    bound: NDArray[np.int32]


@stage
def best_of_chunks(rows: NDArray[np.int32], groups: Groups, work: Selection) -> None:
    """Fill ``work.tops`` with the best of the keys in ``rows`` [16, E, rounded up to 16]."""
    turn(rows, groups.slot, work.flat)
    sort_chunks(work.keys)
    merge_columns(work.keys, work.pairs, work.tops)


@njit(cache=True, nogil=True, error_model="numpy")
def route_block(
    lanes: int, source: NDArray[np.uint16], encoding: int, x: NDArray[np.float32], last: NDArray[np.int32], bias: Bias,
    knobs: KernelKnobs, groups: Groups, expert_ids: NDArray[np.int32], gates: NDArray[np.float32],
    order: NDArray[np.int64], weight: NDArray[np.float64], device: NDArray[np.int64], sequence_ptr: NDArray[np.int64],
    unbiased_counts: bool, per_sequence: NDArray[np.float64], sums: Sums,
) -> int:  # fmt: skip
    """Route tokens and add to their statistics; return the first token with a NaN or inf logit, or -1.

    Args:
        lanes: sixteen; a compiler that knew would write the loops over lanes out instead of using vectors.
        source: [T, E], the bits of float16 or bfloat16 logits.
        encoding: ``FLOAT32``, ``FLOAT16`` or ``BFLOAT16`` of ``keys``.
        x: [T, E], the float32 logits; of others room for the logits of sixteen tokens.
        last: [E], the last bits of each expert's keys.
        bias: for the selection.
        expert_ids, gates: [T, K], K at most 8, filled.
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
    use_sigmoid, top_groups, scores_per_group = knobs.use_sigmoid, knobs.top_groups, knobs.scores_per_group
    n_experts, top_k, n_groups = x.shape[1], expert_ids.shape[1], groups.ptr.shape[0] - 1
    biased, limited, measured = bias.exact.shape[0] > 0, top_groups < n_groups, weight.shape[0] > 0
    sequences, has_free = per_sequence.shape[0] > 0, measured and (limited or biased)
    id_bits = np.int32(id_bits_of(n_experts))
    rows = np.full((lanes, groups.slot.shape[0]), LOWEST, np.int32)
    biased_rows = np.full((lanes if biased else 0, groups.slot.shape[0]), LOWEST, np.int32)
    # Lanes without a token, in a block that is not full, hold keys of real experts all the same.
    for lane in range(lanes):
        rows[lane, :n_experts] = last
        if biased:
            biased_rows[lane, :n_experts] = last
    score = np.zeros((lanes + TOGETHER - 1, n_experts if biased or measured else 0), np.float32)
    exponential, part = np.empty(n_experts, np.float32), np.empty(n_experts, np.float32)
    chunks = groups.chunk_ptr[-1]
    flat = np.full((chunks * CHUNK + 1) * lanes, LOWEST, np.int32)
    work = Selection(
        flat, flat[:-lanes].reshape((chunks, CHUNK * lanes)), np.empty(ROWS * 2 * lanes, np.int32),
        np.empty((chunks, ROWS * lanes), np.int32), np.empty(ROWS * lanes, np.int32), np.empty(ROWS * lanes, np.int32),
        np.empty(lanes, np.float32), np.empty(lanes, np.int32),
    )  # fmt: skip
    group_work = GroupWork(
        np.empty((n_groups, lanes), np.int32), np.empty((n_groups, lanes), np.int32),
        np.empty(n_groups * lanes, np.float32), np.empty(n_groups * lanes, np.float32), np.empty(lanes, np.float32),
        np.empty(lanes, np.float32), np.empty(lanes, np.float32), np.empty(n_groups),
    )  # fmt: skip
    chosen, gate = np.empty((top_k, lanes), np.uint32), np.empty((top_k, lanes))
    free, free_logit = np.empty((top_k, lanes), np.uint32), np.empty((top_k, lanes))
    sure, free_sure, ordered = np.empty(lanes, np.int32), np.empty(lanes, np.int32), np.empty(lanes, np.int32)
    shift, denominator, key, ids = np.empty(lanes), np.empty(lanes), np.empty(top_k), np.empty(top_k, np.int64)
    total, logsumexp, share = np.ones(lanes), np.zeros(lanes), np.zeros(lanes + TOGETHER - 1, np.float32)
    token, row = np.empty(lanes, np.uint32), np.zeros(lanes, np.uint32)
    part_end = np.empty(lanes, np.int64)
    ends = np.empty(lanes, np.bool_)
    own_load, counted = np.zeros(n_experts), np.zeros(n_experts)
    own_affinity, met = np.zeros(n_experts), np.full(sums.received.shape[0], -1, np.int64)
    s, i, end, done, own_weight, length = 0, sequence_ptr[0], sequence_ptr[-1], 0, 0.0, 0
    while s < sequence_ptr.shape[0] - 1:
        parts, s, i = next_tokens(order, sequence_ptr, s, i, token, part_end, ends)
        n = part_end[parts - 1]
        for lane in range(n):
            row[lane] = token[lane] if encoding == FLOAT32 else lane
            if encoding != FLOAT32:
                load_row(source, token[lane], encoding, x, lane)
        wrong = pack_rows(x, row, n, encoding, last, id_bits, rows)
        if wrong >= 0:
            return int(token[wrong])
        exact, lane = True, 0
        while encoding == FLOAT32 and exact and lane < n:
            exact = is_short(x, row[lane], id_bits)
            lane += 1
        for lane in range(n if biased or measured else 0):
            scores_of_row(x, row[lane], use_sigmoid, score, lane, exponential)
            if biased:
                pack_biased_row(score, lane, bias.rounded, bias.offset, bias.per_score, last, id_bits, biased_rows)
            if measured:
                total[lane], logsumexp[lane] = sums_of_row(x, row[lane], use_sigmoid, score, lane, exponential)
        sure[:] = 1
        free_sure[:] = 1
        if biased and has_free:
            best_of_chunks(rows, groups, work)
            merge_chunks(work.tops, work.free)
            if not exact:
                confirm_bound(work.tops, work.free, top_k, id_bits, 0, work.counted, work.bound, free_sure)
        fetch_ahead(source, encoding, x, order, i, end)
        turn(biased_rows if biased else rows, groups.slot, work.flat)
        fetch_ahead(source, encoding, x, order, i + 2, end)
        sort_chunks(work.keys)
        fetch_ahead(source, encoding, x, order, i + 4, end)
        merge_columns(work.keys, work.pairs, work.tops)
        fetch_ahead(source, encoding, x, order, i + 6, end)
        if has_free and not biased:
            merge_chunks(work.tops, work.free)
            if not exact:
                confirm_bound(work.tops, work.free, top_k, id_bits, 0, work.counted, work.bound, free_sure)
        if limited:
            limit_groups(
                work.tops, groups, top_groups, scores_per_group, biased, id_bits, exact, bias.slack,
                bias.offset * bias.per_score, group_work, sure,
            )  # fmt: skip
            fetch_ahead(source, encoding, x, order, i + 8, end)
            for lane in range(0 if biased else n):
                if sure[lane] == 0:
                    rank_exactly(x, row[lane], lane, groups, scores_per_group, group_work.exact, group_work.above)
                    sure[lane] = 1
            leave_out(work.tops, groups, group_work.above, top_groups)
        merge_chunks(work.tops, work.best)
        fetch_ahead(source, encoding, x, order, i + 10, end)
        if biased or not exact:
            confirm_bound(work.tops, work.best, top_k, id_bits, bias.slack, work.counted, work.bound, sure)
        look_up_chosen(x, row, work.best, id_bits, chosen, gate)
        fetch_ahead(source, encoding, x, order, i + 12, end)
        if biased or not exact:
            confirm_order(work.best, top_k, id_bits, bias.slack, ordered)
            for lane in range(n):
                if ordered[lane] == 0:
                    order_chosen(bias.exact, lane, chosen, gate, key)
        to_gates(x, row, n, use_sigmoid, knobs.normalize, knobs.scale, gate, shift, denominator, sure)
        fetch_ahead(source, encoding, x, order, i + 14, end)
        write_tokens(chosen, gate, token, n, expert_ids, gates)
        for lane in range(n):
            if sure[lane] == 0:
                t, own = token[lane], row[lane]
                select_and_gate(
                    x[own : own + 1], bias.exact, knobs, groups.ptr, groups.experts, expert_ids[t : t + 1],
                    gates[t : t + 1],
                )  # fmt: skip
                for k in range(top_k):
                    chosen[k, lane] = expert_ids[t, k]
        if not measured:
            count_chosen(chosen, n, sums.load)
            continue

        if has_free:
            look_up_chosen(x, row, work.free, id_bits, free, free_logit)
            for lane in range(n):
                if free_sure[lane] == 0:
                    exact_free(x, row[lane], lane, key, ids, free)
        begin = 0
        for p in range(parts):
            for lane in range(begin, part_end[p]):
                copies = weight[token[lane]]
                own_weight += copies
                share[lane] = copies / total[lane]
                sums.scalars[1] += copies * logsumexp[lane] * logsumexp[lane]
                if has_free:
                    sums.scalars[2] += copies * share_lost(chosen, free, x, row[lane], score, lane)
                for k in range(top_k):
                    sums.load[chosen[k, lane]] += copies
                for k in range(top_k if device.shape[0] else 0):
                    d = device[chosen[k, lane]]
                    if met[d] != token[lane]:
                        met[d] = token[lane]
                        sums.received[d] += copies
                if sequences and copies > 0.0:
                    length += 1
                    for k in range(top_k):
                        own_load[chosen[k, lane]] += 1.0
                        counted[free[k, lane] if has_free and unbiased_counts else chosen[k, lane]] += copies
            add_affinities(score, begin, part_end[p], share, part, own_affinity)
            share[begin : part_end[p]] = np.float32(0.0)
            begin = part_end[p]
            if not ends[p]:
                continue
            sums.scalars[0] += own_weight
            for e in range(n_experts):
                sums.affinity[e] += own_affinity[e]
            if sequences:
                product = 0.0
                for e in range(n_experts):
                    product += counted[e] * own_affinity[e]
                per_sequence[done, 0] = own_weight
                per_sequence[done, 1] = length
                per_sequence[done, 2] = product
                highest = 0.0
                for e in range(n_experts):
                    highest = max(highest, own_load[e])
                per_sequence[done, 3] = highest * n_experts / (length * top_k) if length else 1.0
                own_load[:] = 0.0
                counted[:] = 0.0
            own_affinity[:] = 0.0
            done, own_weight, length = done + 1, 0.0, 0
    return -1
