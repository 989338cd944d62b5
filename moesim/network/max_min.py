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

What a flow got is told by its bottleneck's virtual clock, the integral of the level: while the bottleneck stays, a
change of the level touches none of the link's flows.

When most links have to be looked at more than once, releasing all flows first is cheaper: without
bottlenecks the same loop is plain water filling, one look per link.

Not modelled: start-up of flows, losses, any unfairness other than the weights.
"""

# mypy: allow-untyped-decorators

from __future__ import annotations

from moesim.network.compiling import inlined, kernel
from moesim.network.lists import INF, least, make_foreign, make_own, put
from moesim.network.reach import reach_less, reach_more, reach_nothing
from moesim.network.state import (
    BLOCK,
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

SAME = 1e-14
"""Relative difference below which two levels count as equal: a few roundings of a sum of hundreds."""

NOISE = 1e-15
"""Share of a link's capacity below which a difference is rounding of its sum: relevant where its own flows are few."""

NEARLY_FULL = 1.0 - 1e-9
"""Share of its capacity from which on a link without own flows is summed exactly; rounding is far smaller."""

NAN = float("nan")
TINY = 1e-300


@inlined
def touch(s: FlowState, link: int) -> None:
    """Note that the flows, rates or capacity of a link changed: its turn must be estimated again."""
    if not s.stirred[link]:
        s.stirred[link] = 1
        s.stirred_link[s.tally[N_STIRRED]] = link
        s.tally[N_STIRRED] += 1


@inlined
def note_change(s: FlowState, link: int) -> None:
    """Note that a link's rate may change at this instant."""
    if not s.touched[link]:
        s.touched[link] = 1
        s.touched_link[s.tally[N_TOUCHED]] = link
        s.tally[N_TOUCHED] += 1


@inlined
def ease_link(s: FlowState, link: int) -> None:
    """Note how a link's level follows from what flows of others leave to it."""
    s.full[link], s.ease[link] = s.link.capacity[link], 0.0
    if s.link.n_own[link] == 0:
        s.full[link] *= NEARLY_FULL
    elif s.link.own_weight[link] > 0.0:
        s.ease[link] = 1.0 / s.link.own_weight[link]
    else:  # rounding has eaten it
        s.full[link] = -INF


@inlined
def estimate(s: FlowState, link: int) -> float:
    """Return about when it is the turn of a link, inf if it bottlenecks nobody and has room."""
    gap = s.full[link] - s.foreign[link]
    turn = min(s.level[link], gap * s.ease[link])
    turn = turn if turn > 0.0 else 0.0
    return INF if s.ease[link] == 0.0 and gap >= 0.0 else turn


@inlined
def hasten(s: FlowState, link: int, turn: float) -> None:
    """Put the turn of a link forward; a later one is found when the present has come."""
    block = len(s.turn) // (BLOCK + 1) * BLOCK + link // BLOCK
    s.turn[link] = min(s.turn[link], turn)
    s.turn[block] = min(s.turn[block], turn)


@inlined
def estimate_turns(s: FlowState) -> None:
    """Estimate when it is the turn of every link that was touched."""
    for i in range(s.tally[N_STIRRED]):
        link = s.stirred_link[i]
        s.stirred[link] = 0
        note_change(s, link)
        ease_link(s, link)
        if s.ease[link] == 0.0 and s.level[link] < INF:
            s.level[link] = s.link.first_due[link] = INF
            s.link.virtual[link] = 0.0
            put(s.completion, link, INF)
        hasten(s, link, estimate(s, link))
    s.tally[N_STIRRED] = 0


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
    """Say whether a flow at places of a list has no bottleneck yet."""
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
    """Return the exact level of a link (inf when it bottlenecks nobody) and whether it takes over flows.

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


@inlined
def forget_due(s: FlowState, flow: int, link: int) -> None:
    """Note that a flow ceases to be one of the link's own: is it the first to end?"""
    if s.due[flow] <= s.link.first_due[link]:
        s.link.first_due[link] = NAN


@kernel
def take_over(s: FlowState, flow: int, link: int, level: float) -> None:
    """Let a flow run at the level of ``link``, set at this instant, from now on."""
    before = s.flow.bottleneck[flow]
    left, rate = remaining(s, flow), 0.0
    if before != NO_LINK:
        rate = s.level[before]
        forget_due(s, flow, before)
    else:
        s.tally[N_HOMELESS] -= 1
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
    """Tell the other links of a link's own flows by how much these have become faster."""
    if len(s.reach.length) > 0:
        row, touched_link, n_touched = s.reach.row, s.touched_link, s.tally[N_TOUCHED]
        for at in range(s.reach.length[link]):
            reached = row.link[link, at]
            s.foreign[reached] += row.weight[link, at] * rise
            hasten(s, reached, estimate(s, reached))
            touched_link[n_touched] = reached  # stays if it is new; without a branch, as is all of this loop
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
