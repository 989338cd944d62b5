"""Exact max-min rates, found again only where something changed (numba kernels).

Every flow in progress runs at the *level* of one link of its route, its bottleneck; a link's level solves
``sum over its flows of weight * min(rate elsewhere, level) = capacity``. Rates are max-min fair exactly when
every link's level is that solution and no flow is faster than the level of a link that it crosses, so
whatever order links are looked at in, an empty list of dirty links is a proof.

A change makes links dirty. They are taken in order of ``min(old level, new level)``, which is the order of
water filling: what happens below that level is settled. For the order a cheap estimate will do (``foreign``
and ``own_weight`` are kept up to date by additions); it never overestimates by more than rounding, because a
flow from elsewhere that is faster than the estimate can only raise the solution. A link whose turn comes is
solved exactly from its list of flows, so that no rounding accumulates, and put back if its turn is later.
It then takes over every flow that is faster than its new level, which makes other links dirty.

When most links have to be looked at more than once, releasing all flows first is cheaper: without
bottlenecks the same loop is plain water filling, one look per link.

Not modelled: start-up of flows, losses, any unfairness other than the weights.
"""

# mypy: allow-untyped-decorators

from __future__ import annotations

from numba import njit

from moesim.network.state import (
    LOGGING,
    N_COMMITS,
    N_FULL,
    N_MOVED,
    N_TOUCHED,
    NO_LINK,
    NOW,
    PATIENCE,
    Floats,
    FlowState,
)

SAME = 1e-14
"""Relative difference below which two levels count as equal: a few roundings of a sum of hundreds."""

NEARLY_FULL = 1.0 - 1e-9
"""Share of its capacity from which on a link without own flows is summed exactly; rounding is far smaller."""

INF = float("inf")


@njit(cache=True)
def set_leaf(tree: Floats, leaf: int, value: float) -> None:
    """Put ``value`` at a leaf of a tournament tree; tree[1] is the smallest of all leaves."""
    i = leaf + len(tree) // 2
    tree[i] = value
    i //= 2
    while i >= 1:
        least = min(tree[2 * i], tree[2 * i + 1])
        if tree[i] == least:
            return
        tree[i] = least
        i //= 2


@njit(cache=True)
def least_leaf(tree: Floats) -> int:
    """Return the leaf with the smallest value, the first of equals."""
    i, half = 1, len(tree) // 2
    while i < half:
        i = 2 * i if tree[2 * i] <= tree[2 * i + 1] else 2 * i + 1
    return i - half


@njit(cache=True)
def touch(s: FlowState, link: int) -> None:
    """Note that the flows, rates or capacity of a link changed: estimate when its turn comes."""
    if not s.link.touched[link]:
        s.link.touched[link] = 1
        s.touched_link[s.tally[N_TOUCHED]] = link
        s.tally[N_TOUCHED] += 1
    turn = 0.0
    if s.link.n_own[link] == 0:
        s.link.level[link] = INF
        set_leaf(s.finish_tree, link, INF)
        if s.link.foreign[link] <= s.link.capacity[link] * NEARLY_FULL:
            turn = INF
    elif s.link.own_weight[link] > 0.0:
        estimate = (s.link.capacity[link] - s.link.foreign[link]) / s.link.own_weight[link]
        turn = max(0.0, min(s.link.level[link], estimate))
    set_leaf(s.dirty_tree, link, turn)


@njit(cache=True)
def settle(s: FlowState, flow: int) -> None:
    """Count what a flow carried since its rate was last set."""
    now = s.clock[NOW]
    if now > s.flow.since[flow]:
        s.flow.remaining[flow] = max(0.0, s.flow.remaining[flow] - s.flow.rate[flow] * (now - s.flow.since[flow]))
        s.flow.since[flow] = now


@njit(cache=True)
def completion(s: FlowState, flow: int) -> float:
    """Return when a flow with a bottleneck finishes if its rate stays, seconds; inf when it stands still."""
    if s.flow.rate[flow] == 0.0:
        return INF
    return float(s.flow.since[flow] + s.flow.remaining[flow] / s.flow.rate[flow])


@njit(cache=True)
def water_level(s: FlowState, link: int) -> tuple[float, bool]:
    """Return the exact level of a link (inf when it bottlenecks nobody) and whether it takes over flows."""
    own = foreign = fastest = total = 0.0
    n_own = 0
    homeless = False
    begin = s.link.list_ptr[link]
    end = begin + s.link.list_len[link]
    for place in range(begin, end):
        flow, weight = s.place.flow[place], s.place.weight[place]
        total += weight
        bottleneck = s.flow.bottleneck[flow]
        if bottleneck == link:
            own += weight
            n_own += 1
        elif bottleneck == NO_LINK:
            own += weight
            n_own += 1
            homeless = True
        else:
            foreign += weight * s.flow.rate[flow]
            fastest = max(fastest, s.flow.rate[flow])
    s.link.foreign[link], s.link.own_weight[link] = foreign, own
    capacity = s.link.capacity[link]
    if n_own > 0:
        level = (capacity - foreign) / own
    elif foreign <= capacity * (1.0 + SAME):
        return INF, False
    else:
        level = capacity / total
    if fastest <= level * (1.0 + SAME):
        return level, homeless
    # Newton's method on a concave function of the level: from below, a few steps, then exact
    n_before = -1
    while True:
        n_faster = 0
        foreign, faster = 0.0, own
        for place in range(begin, end):
            flow = s.place.flow[place]
            if s.flow.bottleneck[flow] != link and s.flow.bottleneck[flow] != NO_LINK:
                if s.flow.rate[flow] > level:
                    faster += s.place.weight[place]
                    n_faster += 1
                else:
                    foreign += s.place.weight[place] * s.flow.rate[flow]
        if n_faster == n_before or faster == 0.0:
            break
        n_before = n_faster
        level = max(level, (capacity - foreign) / faster)
    return level, homeless or fastest > level * (1.0 + SAME)


@njit(cache=True)
def take_over(s: FlowState, flow: int, link: int, level: float) -> None:
    """Let a flow run at the level of ``link`` from now on."""
    settle(s, flow)
    before, rate = s.flow.bottleneck[flow], s.flow.rate[flow]
    s.flow.bottleneck[flow] = link
    s.flow.rate[flow] = level
    if s.tally[LOGGING] and not s.flow.moved[flow]:
        s.flow.moved[flow] = 1
        s.moved_flow[s.tally[N_MOVED]] = flow
        s.tally[N_MOVED] += 1
    for entry in range(s.flow.entry_ptr[flow], s.flow.entry_ptr[flow] + s.flow.entry_len[flow]):
        other, weight = s.entry.link[entry], s.entry.weight[entry]
        if other == link:
            continue
        if other == before or before == NO_LINK:
            s.link.n_own[other] -= 1
            s.link.own_weight[other] -= weight
            s.link.foreign[other] += weight * level
        else:
            s.link.foreign[other] += weight * (level - rate)
        touch(s, other)


@njit(cache=True)
def commit(s: FlowState, link: int, level: float) -> None:
    """Set a link's level, take over the flows that are faster, and find its next completion."""
    touch(s, link)
    s.link.level[link] = level
    own = foreign = 0.0
    n_own = 0
    least = INF
    limit = level * (1.0 + SAME)
    for place in range(s.link.list_ptr[link], s.link.list_ptr[link] + s.link.list_len[link]):
        flow, weight = s.place.flow[place], s.place.weight[place]
        bottleneck, rate = s.flow.bottleneck[flow], s.flow.rate[flow]
        if bottleneck != link and bottleneck != NO_LINK and rate <= limit:
            foreign += weight * rate
            continue
        take_over(s, flow, link, level)
        own += weight
        n_own += 1
        least = min(least, s.flow.remaining[flow])
    s.link.own_weight[link], s.link.foreign[link], s.link.n_own[link] = own, foreign, n_own
    set_leaf(s.finish_tree, link, s.clock[NOW] + least / level if level > 0.0 else INF)
    set_leaf(s.dirty_tree, link, INF)


@njit(cache=True)
def leave(s: FlowState, link: int, level: float) -> None:
    """Take a link whose level stays from the dirty list; a flow of its own may have gone."""
    set_leaf(s.dirty_tree, link, INF)
    if s.link.n_own[link] == 0 or level == INF:
        return
    first = INF
    for place in range(s.link.list_ptr[link], s.link.list_ptr[link] + s.link.list_len[link]):
        flow = s.place.flow[place]
        if s.flow.bottleneck[flow] == link:
            first = min(first, completion(s, flow))
    set_leaf(s.finish_tree, link, first)


@njit(cache=True)
def release_all(s: FlowState) -> None:
    """Take the bottleneck from every flow in progress: the next solve is a full water filling."""
    s.tally[N_FULL] += 1
    for link in range(len(s.link)):
        if s.link.list_len[link] == 0:
            continue
        own = 0.0
        for place in range(s.link.list_ptr[link], s.link.list_ptr[link] + s.link.list_len[link]):
            flow = s.place.flow[place]
            own += s.place.weight[place]
            if s.flow.bottleneck[flow] != NO_LINK:
                settle(s, flow)
                s.flow.bottleneck[flow] = NO_LINK
                s.flow.rate[flow] = 0.0
        s.link.own_weight[link], s.link.foreign[link], s.link.n_own[link] = own, 0.0, s.link.list_len[link]
        s.link.level[link] = INF
        set_leaf(s.finish_tree, link, INF)
        touch(s, link)


@njit(cache=True)
def solve(s: FlowState) -> bool:
    """Make all rates max-min fair at this instant; False if that does not come to an end (a bug of ours)."""
    if s.dirty_tree[1] == INF:
        return True
    looks, full = 0, False
    while s.dirty_tree[1] < INF:
        if looks >= s.tally[PATIENCE] and not full:
            full = True
            looks = 0
            release_all(s)
        turn = s.dirty_tree[1]
        link = least_leaf(s.dirty_tree)
        level, takes = water_level(s, link)
        before = s.link.level[link]
        if not takes and (level == before or abs(level - before) <= SAME * level):
            leave(s, link, level)
            continue
        exact_turn = min(level, before)
        if exact_turn > turn * (1.0 + SAME):
            set_leaf(s.dirty_tree, link, exact_turn)
            continue
        commit(s, link, level)
        looks += 1
        if full and looks > 64 * len(s.link) + 64:
            return False
    s.tally[N_COMMITS] += looks
    return True
