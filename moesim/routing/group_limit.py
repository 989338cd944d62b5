"""Which groups each of sixteen tokens may reach, from the eight best keys of every chunk.

Arrays [G, 16] hold a figure of each group and token.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moesim.routing.exponential import ERROR_32, exponential_32
from moesim.routing.keys import Groups, logit_of
from moesim.routing.lanes import LANES
from moesim.routing.select import sigmoid
from moesim.routing.stage_options import stage
from moesim.routing.top_eight import LOWEST, ROWS

_ONE, _ZERO, _FAR, _MORE = np.float32(1.0), np.float32(0.0), np.float32(np.inf), np.float32(ROWS + 1)
# Sums of two scores within this share of each other are too close to tell by float32.
_RELATIVE_MARGIN = 8 * ERROR_32
# Above the largest x * sigmoid'(x), by which a relative error of a logit moves a sigmoid.
_STEEPEST = np.float32(0.2242)


class GroupWork(NamedTuple):
    """Scratch space of the group limit: of each group and token [G, 16], of each token [16], of each group [G].

    ``above``: how many groups go before each.
    """

    first: NDArray[np.int32]
    second: NDArray[np.int32]
    value: NDArray[np.float32]
    above: NDArray[np.float32]
    margin: NDArray[np.float32]
    lowest: NDArray[np.float32]
    highest: NDArray[np.float32]
    exact: NDArray[np.float64]


# The compiler must not see that there are sixteen lanes, or it writes them out instead of using vectors.
@stage
def best_two(tops: NDArray[np.int32], groups: Groups, first: NDArray[np.int32], second: NDArray[np.int32]) -> None:
    """Fill in the two largest keys of each group; ``LOWEST`` where a group has but one expert."""
    for g in range(first.shape[0]):
        begin = groups.chunk_ptr[g]
        for lane in range(first.shape[1]):
            first[g, lane] = tops[begin, lane]
            second[g, lane] = tops[begin, LANES + lane]
        for i in range(begin + 1, groups.chunk_ptr[g + 1]):
            for lane in range(first.shape[1]):
                high, low = tops[i, lane], tops[i, LANES + lane]
                second[g, lane] = max(max(second[g, lane], min(first[g, lane], high)), low)
                first[g, lane] = max(first[g, lane], high)


@stage
def sums_of_scores(
    first: NDArray[np.int32], second: NDArray[np.int32], id_bits: np.int32, exact: bool, value: NDArray[np.float32],
    margin: NDArray[np.float32],
) -> None:  # fmt: skip
    """Fill ``value`` with the sum of the sigmoids of two keys, and by how much two such sums [16] may err together.

    A key that does not hold all bits stands for a logit x with an error of at most half a step, 2^(bits lost - 24) of
    x; a sigmoid s moves by at most x ds/dx, which is below 0.2242 and x s, times that.
    """
    margin[:] = _ZERO
    for g in range(first.shape[0]):
        for lane in range(margin.shape[0]):
            a, b = logit_of(first[g, lane], id_bits, exact), logit_of(second[g, lane], id_bits, exact)
            high, low = exponential_32(a), exponential_32(b)
            high, low = high / (high + _ONE), low / (low + _ONE)
            if second[g, lane] == LOWEST:
                low = _ZERO
            value[g * LANES + lane] = high + low
            margin[lane] = max(margin[lane], min(_STEEPEST, max(abs(a) * high, abs(b) * low)))
    # Two scores in each of two groups; the slope may grow by half over a step of at most 0.4.
    step = np.float32(0.0 if exact else 1.5 * 4 * 2.0 ** (id_bits - 24))
    for lane in range(margin.shape[0]):
        highest = _ZERO
        for g in range(first.shape[0]):
            highest = max(highest, value[g * LANES + lane])
        margin[lane] = max(step * margin[lane] + np.float32(_RELATIVE_MARGIN) * highest, np.float32(1e-30))


@stage
def rank_groups(
    value: NDArray[np.float32], margin: NDArray[np.float32], top_groups: int, above: NDArray[np.float32],
    lowest: NDArray[np.float32], highest: NDArray[np.float32], sure: NDArray[np.int32],
) -> None:  # fmt: skip
    """Fill ``above`` with how many groups go before each, ties to the lowest; clear ``sure`` where that is unsure.

    It is where the lowest value kept does not exceed the highest left out by more than ``margin`` [16]; a negative
    margin stands for values that are exact. ``lowest`` and ``highest`` [16] are scratch space.
    """
    lowest[:] = np.float32(np.inf)
    highest[:] = np.float32(-np.inf)
    limit = np.float32(top_groups)
    above[:] = _ZERO
    # In rows of all groups that have another so many groups before or after them.
    for begin in range(LANES, value.shape[0], LANES):
        later, above_later = value[begin:], above[begin:]
        for r in range(later.shape[0]):
            above_later[r] += np.float32(value[r] >= later[r])
        for r in range(later.shape[0]):
            above[r] += np.float32(value[r] < later[r])
    for begin in range(0, value.shape[0], LANES):
        own, own_above = value[begin:], above[begin:]
        for lane in range(sure.shape[0]):
            own_value, kept = own[lane], own_above[lane] < limit
            lowest[lane] = min(lowest[lane], own_value if kept else _FAR)
            highest[lane] = max(highest[lane], -_FAR if kept else own_value)
    for lane in range(sure.shape[0]):
        apart = lowest[lane] - highest[lane] > margin[lane] or margin[lane] < _ZERO
        sure[lane] = sure[lane] if apart else 0


@stage
def rank_exactly(
    x: NDArray[np.float32], t: int, lane: int, groups: Groups, scores_per_group: int, exact: NDArray[np.float64],
    above: NDArray[np.float32],
) -> None:  # fmt: skip
    """Rank the groups of the logits ``x[t]`` by the best, or by the two best sigmoids summed, in float64."""
    n_groups = exact.shape[0]
    for g in range(n_groups):
        first, second = -np.inf, -np.inf
        for i in range(groups.ptr[g], groups.ptr[g + 1]):
            own = np.float64(x[t, groups.experts[i]])
            second = max(second, min(first, own))
            first = max(first, own)
        exact[g] = first if scores_per_group == 1 else sigmoid(first)
        if scores_per_group == 2 and second > -np.inf:
            exact[g] += sigmoid(second)
    for g in range(n_groups):
        before = 0.0
        for h in range(n_groups):
            before += exact[h] > exact[g] or (exact[h] == exact[g] and h < g)
        above[g * LANES + lane] = before


@stage
def limit_groups(
    tops: NDArray[np.int32], groups: Groups, top_groups: int, scores_per_group: int, biased: bool, id_bits: np.int32,
    exact: bool, slack: int, missing: np.float32, work: GroupWork, sure: NDArray[np.int32],
) -> None:  # fmt: skip
    """Rank the groups into ``work.above`` by their one or two best keys; clear ``sure`` [16] where that is unsure.

    Args:
        exact: keys hold all bits of the logits.
        slack: by how much two prefixes of biased scores may err together.
        missing: prefix of the second score of a group that has but one expert.
    """
    best_two(tops, groups, work.first, work.second)
    if biased:
        for g in range(work.first.shape[0]):
            for lane in range(sure.shape[0]):
                low = missing if work.second[g, lane] == LOWEST else np.float32(work.second[g, lane] >> id_bits)
                own = np.float32(work.first[g, lane] >> id_bits)
                work.value[g * LANES + lane] = own + low if scores_per_group == 2 else own
        work.margin[:] = np.float32(2 * slack + 4)
    elif scores_per_group == 2:
        sums_of_scores(work.first, work.second, id_bits, exact, work.value, work.margin)
    else:
        for g in range(work.first.shape[0]):
            for lane in range(sure.shape[0]):
                work.value[g * LANES + lane] = logit_of(work.first[g, lane], id_bits, exact)
        work.margin[:] = np.float32(-1.0 if exact else 0.0)
    rank_groups(work.value, work.margin, top_groups, work.above, work.lowest, work.highest, sure)


@stage
def leave_out(tops: NDArray[np.int32], groups: Groups, above: NDArray[np.float32], top_groups: int) -> None:
    """Make the keys of groups that a token may not reach the lowest."""
    limit = np.float32(top_groups)
    for g in range(groups.ptr.shape[0] - 1):
        for i in range(groups.chunk_ptr[g], groups.chunk_ptr[g + 1]):
            for c in range(tops.shape[1] >> 3):
                kept = above[g * LANES + c] < limit
                (
                    tops[i, c], tops[i, c + LANES], tops[i, c + 2 * LANES], tops[i, c + 3 * LANES],
                    tops[i, c + 4 * LANES], tops[i, c + 5 * LANES], tops[i, c + 6 * LANES], tops[i, c + 7 * LANES],
                ) = (
                    tops[i, c] if kept else LOWEST, tops[i, c + LANES] if kept else LOWEST,
                    tops[i, c + 2 * LANES] if kept else LOWEST, tops[i, c + 3 * LANES] if kept else LOWEST,
                    tops[i, c + 4 * LANES] if kept else LOWEST, tops[i, c + 5 * LANES] if kept else LOWEST,
                    tops[i, c + 6 * LANES] if kept else LOWEST, tops[i, c + 7 * LANES] if kept else LOWEST,
                )  # fmt: skip


@stage
def confirm_bound(
    tops: NDArray[np.int32], best: NDArray[np.int32], top_k: int, id_bits: np.int32, slack: int,
    counted: NDArray[np.float32], bound: NDArray[np.int32], sure: NDArray[np.int32],
) -> None:  # fmt: skip
    """Clear ``sure`` where a key that was left out may be of a higher value than the last of the ``top_k`` chosen.

    Those are keys whose prefix is at most ``slack`` below the last one's. All eight best of a chunk may hide a ninth.
    ``counted`` and ``bound`` [16] are scratch space.
    """
    last = (top_k - 1) * LANES
    for lane in range(sure.shape[0]):
        bound[lane] = np.int32((best[last + lane] >> id_bits) - np.int32(slack)) << id_bits
    counted[:] = _ZERO
    wanted = np.float32(top_k)
    for i in range(tops.shape[0]):
        for c in range(counted.shape[0]):
            own = bound[c]
            few = np.float32(tops[i, c] >= own) + np.float32(tops[i, c + LANES] >= own)
            few += np.float32(tops[i, c + 2 * LANES] >= own) + np.float32(tops[i, c + 3 * LANES] >= own)
            few += np.float32(tops[i, c + 4 * LANES] >= own) + np.float32(tops[i, c + 5 * LANES] >= own)
            few += np.float32(tops[i, c + 6 * LANES] >= own)
            # The last of a chunk counts for more than all that may be chosen.
            counted[c] += few + (_MORE if tops[i, c + 7 * LANES] >= own else _ZERO)
    for lane in range(sure.shape[0]):
        sure[lane] = sure[lane] if counted[lane] == wanted else 0


@stage
def confirm_order(
    best: NDArray[np.int32], top_k: int, id_bits: np.int32, slack: int, ordered: NDArray[np.int32]
) -> None:
    """Fill ``ordered`` [16]: whether the prefixes of the chosen are more than ``slack`` apart."""
    ordered[:] = 1
    for k in range(top_k - 1):
        for lane in range(ordered.shape[0]):
            gap = np.int32((best[k * LANES + lane] >> id_bits) - (best[(k + 1) * LANES + lane] >> id_bits))
            ordered[lane] = ordered[lane] if gap > np.int32(slack) else 0
