"""The level of one link, exactly, from the flows on its list (numba kernels)."""

# mypy: allow-untyped-decorators

from moesim.network.exact.lists import INF
from moesim.network.exact.state import N_HOMELESS, NO_LINK, FlowState
from moesim.network.kernel_options import inlined

SAME = 1e-14
"""Relative difference below which two levels count as equal: a few roundings of a sum of hundreds."""


@inlined
def weight_of(s: FlowState, begin: int, end: int) -> float:
    """Return sum(weight) of the flows at places of a list."""
    weights = s.place.weight
    sum0 = sum1 = sum2 = sum3 = 0.0
    for place in range(begin, end - 3, 4):
        sum0 += weights[place]
        sum1 += weights[place + 1]
        sum2 += weights[place + 2]
        sum3 += weights[place + 3]
    for place in range(end - (end - begin) % 4, end):
        sum0 += weights[place]
    return (sum0 + sum1) + (sum2 + sum3)


@inlined
def has_homeless(s: FlowState, begin: int, end: int) -> bool:
    """Return whether a flow at places of a list has no bottleneck yet."""
    place = begin
    while place < end and s.place.bottleneck[place] != NO_LINK:
        place += 1
    return place < end


@inlined
def load_of(s: FlowState, begin: int, end: int) -> tuple[float, float]:
    """Return sum(weight * rate) of the flows at places of a list, and the fastest rate.

    Four sums side by side, because one would wait for each addition before the next.
    """
    levels, weights, bottlenecks = s.level, s.place.weight, s.place.bottleneck
    load0 = load1 = load2 = load3 = fastest0 = fastest1 = 0.0
    for place in range(begin, end - 3, 4):
        rate0, rate1 = levels[bottlenecks[place]], levels[bottlenecks[place + 1]]
        rate2, rate3 = levels[bottlenecks[place + 2]], levels[bottlenecks[place + 3]]
        load0 += weights[place] * rate0
        load1 += weights[place + 1] * rate1
        load2 += weights[place + 2] * rate2
        load3 += weights[place + 3] * rate3
        fastest0 = max(fastest0, max(rate0, rate1))
        fastest1 = max(fastest1, max(rate2, rate3))
    for place in range(end - (end - begin) % 4, end):
        rate = levels[bottlenecks[place]]
        load0 += weights[place] * rate
        fastest0 = max(fastest0, rate)
    return (load0 + load1) + (load2 + load3), max(fastest0, fastest1)


@inlined
def split_at(s: FlowState, begin: int, end: int, level: float) -> tuple[float, float]:
    """Of the flows at places of a list, return sum(weight * rate) up to ``level`` and sum(weight) above."""
    levels, weights, bottlenecks = s.level, s.place.weight, s.place.bottleneck
    slow0 = slow1 = fast0 = fast1 = 0.0
    for place in range(begin, end - 1, 2):
        rate0, rate1 = levels[bottlenecks[place]], levels[bottlenecks[place + 1]]
        weight0, weight1 = weights[place], weights[place + 1]
        slow0 += weight0 * rate0 if rate0 <= level else 0.0
        slow1 += weight1 * rate1 if rate1 <= level else 0.0
        fast0 += weight0 if rate0 > level else 0.0
        fast1 += weight1 if rate1 > level else 0.0
    if (end - begin) % 2:
        rate0 = levels[bottlenecks[end - 1]]
        if rate0 <= level:
            slow0 += weights[end - 1] * rate0
        else:
            fast0 += weights[end - 1]
    return slow0 + slow1, fast0 + fast1


@inlined
def water_level(s: FlowState, link: int, turn: float) -> tuple[float, bool, bool]:
    """Return the exact level of a link (inf when it bottlenecks no flow) and whether it takes over flows.

    The third value says that the level is a lower bound only: it is past the link's ``turn`` already.
    """
    begin = s.link.list_ptr[link]
    others, end = begin + s.link.n_own[link], begin + s.link.list_len[link]
    own = weight_of(s, begin, others)
    homeless = s.tally[N_HOMELESS] > 0 and has_homeless(s, begin, others)
    foreign, fastest = load_of(s, others, end)
    s.foreign[link], s.link.own_weight[link] = foreign, own
    capacity = s.link.capacity[link]
    if others > begin:
        level = (capacity - foreign) / own
    elif foreign <= capacity * (1.0 + SAME):
        return INF, False, False
    else:
        level = capacity / split_at(s, others, end, -1.0)[1]
    limit = fastest / (1.0 + SAME)
    if limit <= level:
        return level, homeless, False
    # Newton's method on a concave function of the level: from below, a few steps, then exact
    faster = own
    while True:
        before = faster
        foreign, faster = split_at(s, others, end, level)
        faster += own
        if faster == before or faster == 0.0:
            return level, homeless or limit > level, False
        level = max(level, (capacity - foreign) / faster)
        if turn * (1.0 + SAME) < level and turn < s.level[link]:
            return level, True, True
