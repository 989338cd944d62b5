"""The pass of ``fused`` in numpy, for runs too small to be worth compiling it: same arguments, same bytes.

Selection and gates are those of ``select`` by contract, so they are made in float64 here; where a margin is within the
error of numpy's exponentials, ``select`` decides for that token. Statistics follow ``affinities`` and ``exponential``
operation by operation in float32. Sums that a compiler may reorder (``summing_stage``) agree only where they are exact
in any order; ``only_where`` sees to it.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from moesim.compiling import only_where
from moesim.routing.affinities import FAR_ABOVE, FAR_BELOW, TOGETHER, far_affinities
from moesim.routing.exponential import LIMIT_64, exponentials_32
from moesim.routing.keys import BFLOAT16, FLOAT32, Bias, Groups
from moesim.routing.lanes import LANES
from moesim.routing.router_spec import KernelKnobs
from moesim.routing.scores import kernel_block
from moesim.routing.select import select_and_gate

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]
Logits = NDArray[np.float32]
# Relative error of sums of a few exponentials, with room; and what rounds a gate to another float32.
_MARGIN, _GATE_ERROR = 1e-13, 1e-13
# Sums of float32 numbers whose largest partial sum is so many times the smallest are exact in float64.
_EXACT = 2.0**29


class Sums(NamedTuple):
    """What a block of tokens adds to a batch's statistics; empty arrays where they are not asked for.

    ``load`` [E]: selections, weighted. ``affinity`` [E]: affinities that sum to 1 over a token's experts, weighted.
    ``received`` [D]: tokens that each device receives, each once, weighted. ``scalars``: sum over tokens of weight,
    of weight * logsumexp^2 and of weight * gate mass lost.
    """

    load: Floats
    affinity: Floats
    received: Floats
    scalars: Floats


def plain_block(
    _: int, source: NDArray[np.uint16], encoding: int, x: Logits, last: Any, bias: Bias, knobs: KernelKnobs,
    groups: Groups, expert_ids: NDArray[np.int32], gates: Logits, order: Ids, weight: Floats, device: Ids,
    sequence_ptr: Ids, unbiased_counts: bool, per_sequence: Floats, sums: Sums,
) -> int:  # fmt: skip
    """Do what ``route_block`` of ``fused`` does."""
    token = order[sequence_ptr[0] : sequence_ptr[-1]]
    if encoding == FLOAT32:
        logits = x[token]
    else:
        logits = kernel_block(source[token] if encoding == BFLOAT16 else source[token].view(np.float16))
    finite = np.isfinite(logits).all(axis=1)
    if not finite.all():
        return int(token[np.argmin(finite)])
    chosen, gate = _select(logits, bias.exact, knobs, groups, expert_ids.shape[1])
    expert_ids[token], gates[token] = chosen, gate
    if not len(weight):
        sums.load[:] += np.bincount(chosen.ravel(), minlength=len(sums.load))
        return -1
    score, total, logsumexp = _affinities(logits, knobs.use_sigmoid)
    copies: Floats = weight[token]
    # Sequential, as a loop adds: numpy's own sums go in pairs.
    sums.scalars[1] += _in_order(copies * logsumexp * logsumexp)
    free: Any = chosen
    if knobs.top_groups < len(groups.ptr) - 1 or len(bias.exact):
        free = _best(logits, chosen.shape[1])
        sums.scalars[2] += _in_order(copies * _share_lost(logits, score, chosen, free))
    of_choice = np.repeat(copies, chosen.shape[1])
    sums.load[:] += np.bincount(chosen.ravel(), of_choice, len(sums.load))
    if len(device):
        met, first = np.unique(device[chosen] + np.arange(len(token))[:, None] * len(sums.received), return_index=True)
        sums.received[:] += np.bincount(met % len(sums.received), of_choice[first], len(sums.received))
    length = np.diff(sequence_ptr)
    own = _affinity_of_sequences(score, (copies / total).astype(np.float32), length)
    sequence = np.repeat(np.arange(len(length)), length)
    own_weight = np.bincount(sequence, copies, len(length))
    sums.scalars[0] += _in_order(own_weight)
    sums.affinity[:] += np.cumsum(own, axis=0)[-1]
    if len(per_sequence):
        there = copies > 0
        counted = free if unbiased_counts else chosen
        per_sequence[:] = _of_sequences(sequence[there], chosen[there], counted[there], copies[there], own, own_weight)
    return -1


def _in_order(values: NDArray[Any]) -> float:
    return float(np.cumsum(values)[-1]) if len(values) else 0.0


def _select(
    logits: Logits, bias: Floats, knobs: KernelKnobs, groups: Groups, top_k: int
) -> tuple[NDArray[np.int32], Logits]:
    """Return the experts [T, K] and gates [T, K] of ``select_and_gate``, which decides where the margin is small."""
    n_tokens, n_experts = logits.shape
    exact: Floats = logits.astype(np.float64)
    sure = np.abs(logits).max(axis=1) < LIMIT_64 / 2
    keys: Any = logits
    if len(bias):
        keys = _sigmoid(exact) + bias
    if knobs.top_groups < len(groups.ptr) - 1:
        values = _sigmoid(exact) + (bias if len(bias) else 0.0) if knobs.scores_per_group > 1 else keys
        members = np.split(groups.experts, groups.ptr[1:-1])
        best = np.stack(
            [np.sort(values[:, own], axis=1)[:, -knobs.scores_per_group :].sum(axis=1) for own in members], axis=1
        )
        kept = np.argsort(-best, axis=1, kind="stable")
        if knobs.scores_per_group > 1 or len(bias):
            sure &= _apart(np.take_along_axis(best, kept, axis=1)[:, knobs.top_groups - 1 : knobs.top_groups + 1])
        group_of = np.empty(n_experts, np.int64)
        group_of[groups.experts] = np.repeat(np.arange(len(members)), np.diff(groups.ptr))
        open_groups = np.zeros((n_tokens, len(members)), bool)
        np.put_along_axis(open_groups, kept[:, : knobs.top_groups], True, axis=1)
        keys = np.where(open_groups[:, group_of], keys, keys.dtype.type(-np.inf))
    ranked = _best(keys, min(top_k + 1, n_experts))
    if len(bias):
        sure &= _apart(np.take_along_axis(keys, ranked, axis=1))
    chosen = ranked[:, :top_k].astype(np.int32)
    gate = _gates(exact, chosen, knobs)
    sure &= ((gate * (1 - _GATE_ERROR)).astype(np.float32) == (gate * (1 + _GATE_ERROR)).astype(np.float32)).all(axis=1)
    gates = gate.astype(np.float32)
    for t in np.flatnonzero(~sure):
        span = slice(t, t + 1)
        select_and_gate(logits[span], bias, knobs, groups.ptr, groups.experts, chosen[span], gates[span])
    return chosen, gates


def _best(keys: Any, k: int) -> Ids:
    """Return the experts with the highest keys, [T, k]: float32 ones with ties by lowest id, float64 ones if apart."""
    n_experts = keys.shape[1]
    if keys.dtype == np.float32:
        bits = (keys + np.float32(0.0)).view(np.int32)  # a negative zero ties with zero
        ordered = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).astype(np.int64) << 32
        best = np.sort(np.partition(ordered | np.arange(n_experts)[::-1], n_experts - k, axis=1)[:, n_experts - k :])
        return np.asarray(n_experts - 1 - (best[:, ::-1] & 0xFFFFFFFF))
    some = np.argpartition(keys, n_experts - k, axis=1)[:, n_experts - k :]
    order = np.argsort(-np.take_along_axis(keys, some, axis=1), axis=1)
    return np.asarray(np.take_along_axis(some, order, axis=1))


def _apart(descending: Floats) -> NDArray[np.bool_]:
    """Which rows hold numbers that are further apart than they may be off."""
    gap = descending[:, :-1] - descending[:, 1:]
    return np.asarray((gap > _MARGIN * (1.0 + np.abs(descending[:, :-1]))).all(axis=1))


def _sigmoid(x: Floats) -> Floats:
    small = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0.0, 1.0, small) / (1.0 + small))


def _gates(exact: Floats, chosen: NDArray[np.int32], knobs: KernelKnobs) -> Floats:
    logit = np.take_along_axis(exact, chosen, axis=1)
    if knobs.use_sigmoid:
        value, total = _sigmoid(logit), np.ones(1)
    else:
        top = exact.max(axis=1, keepdims=True)
        value, total = np.exp(logit - top), np.exp(exact - top).sum(axis=1, keepdims=True)
    if knobs.normalize:
        total = value.sum(axis=1, keepdims=True)
    return np.asarray(value * (knobs.scale / total))


def _affinities(logits: Logits, use_sigmoid: bool) -> tuple[Logits, Floats, Floats]:
    """Return the scores [T, E], the sum of each token's affinities and its logsumexp [T]."""
    exponential = exponentials_32(logits)
    score = exponential / (exponential + np.float32(1.0)) if use_sigmoid else exponential.copy()
    exponentials = _row_sums(exponential)
    total = _row_sums(score) if use_sigmoid else exponentials.copy()
    logsumexp = np.array([math.log(value) for value in exponentials.tolist()])
    for t in np.flatnonzero(~((exponentials > FAR_BELOW) & (exponentials < FAR_ABOVE))):
        total[t], logsumexp[t] = far_affinities(logits, int(t), use_sigmoid, score, int(t))
    return score, total, logsumexp


def _row_sums(values: Logits) -> Floats:
    """The sums of ``row_sum``: fours in float32, and those in float64."""
    quarter = values.shape[1] >> 2
    a, b, c, d = (values[:, i * quarter : (i + 1) * quarter] for i in range(4))
    fours = np.concatenate([((a + b) + c) + d, values[:, 4 * quarter :]], axis=1).astype(np.float64)
    total = fours.sum(axis=1)
    far = ~((total > FAR_BELOW) & (total < FAR_ABOVE))
    only_where(far | (total < _EXACT * fours.min(axis=1)))
    return np.asarray(total)


def _share_lost(logits: Logits, score: Logits, chosen: Any, free: Any) -> Floats:
    """The shares of ``share_lost``, [T]."""
    own, best = (np.take_along_axis(logits, ids, axis=1) for ids in (chosen, free))
    lowest = best.min(axis=1, keepdims=True)
    same = (own >= lowest).all(axis=1) & ((best > lowest).sum(axis=1) == (own > lowest).sum(axis=1))
    taken, possible = (np.take_along_axis(score, ids, axis=1).astype(np.float64) for ids in (chosen, free))
    for values in (taken, possible):
        only_where(same | (values.sum(axis=1) < _EXACT * values.min(axis=1)))
    return np.where(same, 0.0, np.maximum(0.0, 1.0 - taken.sum(axis=1) / possible.sum(axis=1)))


def _affinity_of_sequences(score: Logits, share: Logits, length: Ids) -> Floats:
    """The sums of ``add_affinities`` over each sequence, [S, E]: sixteen tokens in float32, four at a time."""
    n_experts, parts = score.shape[1], -(-length // LANES)
    first, at = np.cumsum(parts) - parts, np.concatenate([[0], np.cumsum(length)[:-1]])
    row = np.repeat(first * LANES - at, length) + np.arange(len(score))
    weighted = np.zeros((int(parts.sum()) * LANES, n_experts), np.float32)
    weighted[row] = share[:, None] * score
    four = weighted.reshape(-1, LANES // TOGETHER, TOGETHER, n_experts)
    quads = (four[:, :, 0] + four[:, :, 1]) + (four[:, :, 2] + four[:, :, 3])
    part = quads[:, 0]
    for i in range(1, LANES // TOGETHER):
        part = part + quads[:, i]
    own = np.zeros((len(length), n_experts))
    for i in range(int(parts.max(initial=0))):
        going_on = parts > i
        own[going_on] += part[first[going_on] + i]
    return own


def _of_sequences(
    sequence: Ids, chosen: Any, counted: Any, copies: Floats, own: Floats, own_weight: NDArray[Any]
) -> Floats:  # fmt: skip
    """The rows of ``per_sequence``, [S, 4]; tokens without copies are left out before."""
    (n_sequences, n_experts), top_k = own.shape, chosen.shape[1]
    place, size = sequence[:, None] * n_experts, n_sequences * n_experts
    load = np.bincount((place + chosen).ravel(), minlength=size).reshape(own.shape)
    count = np.bincount((place + counted).ravel(), np.repeat(copies, top_k), size).reshape(own.shape)
    length = np.bincount(sequence, minlength=n_sequences)
    with np.errstate(divide="ignore", invalid="ignore"):
        imbalance = np.where(length > 0, load.max(axis=1).astype(np.float64) * n_experts / (length * top_k), 1.0)
    return np.stack([own_weight, length, np.cumsum(count * own, axis=1)[:, -1], imbalance], axis=1)
