"""Exact max-min rates, found again only where something changed (numba kernels).

Every flow in progress runs at the *level* of one link of its route, its bottleneck; a link's level solves
``sum over its flows of weight * min(rate elsewhere, level) = capacity``. Rates are max-min fair exactly when
every link's level is that solution and no flow is faster than the level of a link that it crosses, so
whatever order links are looked at in, an empty list of dirty links is a proof.

A change makes links dirty. They are taken in order of ``min(old level, new level)``, which is the order of
water filling: what happens below that level is settled. For the order a cheap estimate will do (``foreign``
and ``own_weight`` are kept up to date by additions); it never overestimates by more than rounding, because a
flow from elsewhere that is faster than the estimate can only raise the solution. A link whose turn comes is
solved exactly from its list of flows, so that no rounding accumulates (``water``), and put back if its turn is later.
It then takes over every flow that is faster than its new level, which makes other links dirty. Whom a change of its
level concerns stands in a table where there are flows enough for one (``reach``), else in the routes of its own flows.

What a flow got is given by its bottleneck's virtual clock, the integral of the level: while the bottleneck stays, a
change of the level touches none of the link's flows.

When most links have to be looked at more than once, releasing all flows first is cheaper: without
bottlenecks the same loop is plain water filling, one look per link.

Not modelled: start-up of flows, losses, any unfairness other than the weights.
"""

# mypy: allow-untyped-decorators

from moesim.network.exact.lists import INF, least, lower, make_foreign, make_own, put
from moesim.network.exact.reach import reach_less, reach_more, reach_nothing
from moesim.network.exact.state import (
    LOGGING,
    N_COMMITS,
    N_FULL,
    N_HOMELESS,
    N_LIVE,
    N_MOVED,
    N_STIRRED,
    N_TOUCHED,
    NO_LINK,
    NOW,
    PATIENCE,
    FlowState,
)
from moesim.network.exact.turns import ease_link, estimate, estimate_turns, note_change, touch
from moesim.network.exact.water import SAME, water_level
from moesim.network.kernel_options import inlined, kernel

NOISE = 1e-15
"""Share of a link's capacity below which a difference is rounding of its sum: relevant where its own flows are few."""

NAN = float("nan")
TINY = 1e-300


@inlined
def virtual_now(s: FlowState, link: int) -> float:
    """Return the reading of a link's virtual clock: what each of its own flows has got since it was last idle."""
    level = s.level[link]
    if level == INF:
        return 0.0
    return float(s.link.virtual[link] + level * (s.clock[NOW] - s.link.set_at[link]))


@inlined
def remaining(s: FlowState, flow: int) -> float:
    """Return the bytes that a flow has left."""
    bottleneck = s.flow.bottleneck[flow]
    if bottleneck == NO_LINK:
        return float(s.due[flow])
    return float(max(0.0, s.due[flow] - virtual_now(s, bottleneck)))


@inlined
def set_next_completion(s: FlowState, link: int) -> None:
    """Find when the first of a link's own flows ends if its level stays."""
    first = s.link.first_due[link]
    if first != first:
        first = INF
        flows, due = s.place.flow, s.due
        begin = s.link.list_ptr[link]
        for place in range(begin, begin + s.link.n_own[link]):
            first = min(first, due[flows[place]])
        s.link.first_due[link] = first
    level = s.level[link]
    at = INF
    if level > 0.0:
        at = s.link.set_at[link] + max(0.0, first - s.link.virtual[link]) / level
    put(s.completion, link, at)


@inlined
def forget_due(s: FlowState, flow: int, link: int) -> None:
    """Note that a flow ceases to be one of the link's own: is it the first to end?"""
    if s.due[flow] <= s.link.first_due[link]:
        s.link.first_due[link] = NAN


@inlined
def leave_level(s: FlowState, flow: int) -> tuple[int, float, float]:
    """Let a flow go from its bottleneck; return which that was, the bytes left and the rate that it had there."""
    before = s.flow.bottleneck[flow]
    left, rate = remaining(s, flow), 0.0
    if before != NO_LINK:
        rate = s.level[before]
        forget_due(s, flow, before)
    else:
        s.tally[N_HOMELESS] -= 1
    return before, left, rate


@kernel
def take_over(s: FlowState, flow: int, link: int, level: float) -> None:
    """Let a flow run at the level of ``link``, set at this instant, from now on."""
    before, left, rate = leave_level(s, flow)
    s.flow.bottleneck[flow] = link
    keeps_reach = len(s.reach.length) > 0
    s.due[flow] = s.link.virtual[link] + left
    if s.due[flow] < s.link.first_due[link]:
        s.link.first_due[link] = s.due[flow]
    if s.tally[LOGGING] and not s.flow.moved[flow]:
        s.flow.moved[flow] = 1
        s.moved_flow[s.tally[N_MOVED]] = flow
        s.tally[N_MOVED] += 1
    links, bottlenecks = s.link, s.place.bottleneck
    entry_link, entry_weight, entry_place = s.entry.link, s.entry.weight, s.entry.place
    first = s.flow.entry_ptr[flow]
    for entry in range(first, first + s.flow.entry_len[flow]):
        other, weight, place = entry_link[entry], entry_weight[entry], entry_place[entry]
        bottlenecks[place] = link
        if other == link:
            if before != NO_LINK:
                make_own(s, link, place)
                if keeps_reach:
                    reach_less(s, before, link, weight)
            continue
        if keeps_reach:
            if before != NO_LINK and other != before:
                reach_less(s, before, other, weight)
            reach_more(s, link, other, weight)
        if other == before or before == NO_LINK:
            make_foreign(s, other, place)
            links.own_weight[other] -= weight
            s.foreign[other] += weight * level
        else:
            s.foreign[other] += weight * (level - rate)
        touch(s, other)


@inlined
def spread(s: FlowState, link: int, rise: float) -> None:
    """Inform the other links of a link's own flows by how much these have become faster."""
    if len(s.reach.length) > 0:  # without a branch inside: there is no guessing which links have turns to come
        row, touched_link, n_touched = s.reach.row, s.touched_link, s.tally[N_TOUCHED]
        for at in range(s.reach.length[link]):
            reached = row.link[link, at]
            s.foreign[reached] += row.weight[link, at] * rise
            lower(s.turn, reached, estimate(s, reached))
            touched_link[n_touched] = reached  # stays if it is new
            n_touched += 1 - s.touched[reached]
            s.touched[reached] = 1
        s.tally[N_TOUCHED] = n_touched
        return
    bottlenecks, route, length = s.place.bottleneck, s.place.route, s.place.length
    entry_link, entry_weight, foreign, stirred = s.entry.link, s.entry.weight, s.foreign, s.stirred
    stirred_link, n = s.stirred_link, s.tally[N_STIRRED]
    stirred[link] = 1  # not itself
    begin = s.link.list_ptr[link]
    for place in range(begin, begin + s.link.n_own[link]):
        if bottlenecks[place] == NO_LINK:
            continue
        for entry in range(route[place], route[place] + length[place]):
            other = entry_link[entry]
            foreign[other] += entry_weight[entry] * rise
            if not stirred[other]:
                stirred[other] = 1
                stirred_link[n] = other
                n += 1
    stirred[link] = 0
    s.tally[N_STIRRED] = n


@inlined
def commit(s: FlowState, link: int, level: float, takes: bool) -> None:
    """Set a link's level, take over the flows that are faster, and find its next completion."""
    note_change(s, link)
    before = s.level[link]
    s.link.virtual[link] = virtual_now(s, link)
    s.link.set_at[link] = s.clock[NOW]
    s.level[link] = level
    foreign, own = s.foreign[link], s.link.own_weight[link]
    begin = s.link.list_ptr[link]
    if before < INF:  # else its own flows have no bottleneck yet
        spread(s, link, level - before)
    if takes:
        flows, bottlenecks, weights, levels = s.place.flow, s.place.bottleneck, s.place.weight, s.level
        foreign = 0.0
        limit = level * (1.0 + SAME)
        first = begin if s.tally[N_HOMELESS] > 0 else begin + s.link.n_own[link]
        for place in range(first, begin + s.link.list_len[link]):
            bottleneck, weight = bottlenecks[place], weights[place]
            if bottleneck == link:
                continue
            if bottleneck != NO_LINK:
                rate = levels[bottleneck]
                if rate <= limit:
                    foreign += weight * rate
                    continue
                own += weight
            take_over(s, flows[place], link, level)
    s.foreign[link], s.link.own_weight[link] = foreign, own
    ease_link(s, link)
    set_next_completion(s, link)
    put(s.turn, link, INF)


@inlined
def leave(s: FlowState, link: int) -> None:
    """Take a link whose level stays from the dirty list; a flow of its own may have gone."""
    put(s.turn, link, INF)
    if s.link.n_own[link] > 0:
        set_next_completion(s, link)


@kernel
def release_all(s: FlowState) -> None:
    """Take the bottleneck from every flow in progress: the next solve is a full water filling."""
    s.tally[N_FULL] += 1
    s.tally[N_HOMELESS] = s.tally[N_LIVE]
    for link in range(len(s.reach.length)):
        reach_nothing(s, link)
    for link in range(len(s.level)):
        for place in range(s.link.list_ptr[link], s.link.list_ptr[link] + s.link.n_own[link]):
            flow = s.place.flow[place]
            s.due[flow] = remaining(s, flow)
            s.flow.bottleneck[flow] = NO_LINK
    for link in range(len(s.level)):
        if s.link.list_len[link] == 0:
            continue
        own = 0.0
        for place in range(s.link.list_ptr[link], s.link.list_ptr[link] + s.link.list_len[link]):
            own += s.place.weight[place]
            s.place.bottleneck[place] = NO_LINK
        s.link.own_weight[link], s.foreign[link], s.link.n_own[link] = own, 0.0, s.link.list_len[link]
        s.level[link] = s.link.first_due[link] = INF
        s.link.virtual[link] = 0.0
        put(s.completion, link, INF)
        touch(s, link)


@inlined
def solve(s: FlowState) -> bool:
    """Make all rates max-min fair at this instant; False if that does not come to an end (a bug of ours)."""
    looks, full = 0, False
    while True:
        estimate_turns(s)
        turn, link = least(s.turn)
        if link < 0:
            break
        if looks >= s.tally[PATIENCE] and not full:
            full = True
            looks = 0
            release_all(s)
            continue
        later = estimate(s, link)
        if later > turn * (1.0 + SAME):
            put(s.turn, link, later)
            continue
        before = s.level[link]
        level, takes, early = water_level(s, link, turn)
        noise = max(SAME * level, NOISE * s.link.capacity[link] / max(s.link.own_weight[link], TINY))
        if not takes and (level == before or abs(level - before) <= noise):
            leave(s, link)
            continue
        exact_turn = min(level, before)
        if early or exact_turn > turn * (1.0 + SAME):
            put(s.turn, link, exact_turn)
            continue
        commit(s, link, level, takes)
        looks += 1
        if full and looks > 64 * len(s.level) + 64:
            return False
    s.tally[N_COMMITS] += looks
    return True
