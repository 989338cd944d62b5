"""How flows enter, change and leave a network: routes, starts, the lists of the links, waiters (numba kernels).

A flow enters with ``admit``, stands in a heap until its start, then on the list of each link it loads, and
leaves by finishing or being cancelled; whoever waits for it is counted down. Rates are not touched here: the
links concerned become dirty and ``max_min`` does the rest.
"""

# mypy: allow-untyped-decorators

from moesim.compiling import njit
from moesim.network.exact.lists import INF, make_foreign, make_own, swap_places
from moesim.network.exact.max_min import leave_level
from moesim.network.exact.reach import reach_less
from moesim.network.exact.starts import forget_start, pop_start, push_start
from moesim.network.exact.state import (
    CANCELLED,
    FINISHED,
    LIVE,
    N_DONE,
    N_HOMELESS,
    N_LIVE,
    N_PENDING,
    NO_LINK,
    NOW,
    WAITING,
    Floats,
    FlowState,
    Ints,
    Pointers,
)
from moesim.network.exact.turns import touch
from moesim.network.kernel_options import inlined, kernel


@kernel
def lay_route(s: FlowState, flow: int, links: Ints, weights: Floats, cap_link: int) -> None:
    """Write a flow's entries at its entry_ptr: each link once, weights added up, none of weight 0."""
    begin = s.flow.entry_ptr[flow]
    n = 0
    for i in range(len(links)):
        if weights[i] == 0.0:
            continue
        same = -1
        for entry in range(begin, begin + n):
            if s.entry.link[entry] == links[i]:
                same = entry
                break
        if same >= 0:
            s.entry.weight[same] += weights[i]
        else:
            s.entry.link[begin + n] = links[i]
            s.entry.weight[begin + n] = weights[i]
            s.link.reserved[links[i]] += 1
            n += 1
    if n > 0 and cap_link >= 0:
        s.entry.link[begin + n] = cap_link
        s.entry.weight[begin + n] = 1.0
        s.link.reserved[cap_link] += 1
        n += 1
    s.flow.entry_len[flow] = n


@kernel
def admit(
    s: FlowState,
    first: int,
    first_entry: int,
    first_wait: int,
    first_cap: int,
    route_ptr: Pointers,
    route_links: Ints,
    weight: Floats,
    size: Floats,
    start: Floats,
    rate_cap: Floats,
    waiter_ptr: Pointers,
    waiter_ids: Ints,
) -> None:
    """Write a batch of flows into its slots and queue their starts."""
    entry, cap = first_entry, first_cap
    for i in range(len(size)):
        flow = first + i
        s.flow.phase[flow] = WAITING
        s.flow.start[flow] = start[i]
        s.flow.finish[flow] = float("nan")
        s.due[flow] = size[i]
        s.flow.bottleneck[flow] = NO_LINK
        s.flow.logged[flow] = NO_LINK
        s.flow.entry_ptr[flow] = entry
        cap_link = -1
        if rate_cap[i] < INF:
            cap_link = cap
            s.link.capacity[cap] = rate_cap[i]
            cap += 1
            entry += 1
        lay_route(
            s,
            flow,
            route_links[route_ptr[i] : route_ptr[i + 1]],
            weight[route_ptr[i] : route_ptr[i + 1]],
            cap_link,
        )
        entry += route_ptr[i + 1] - route_ptr[i]
        s.flow.wait_ptr[flow] = first_wait + waiter_ptr[i]
        s.flow.wait_len[flow] = waiter_ptr[i + 1] - waiter_ptr[i]
        for j in range(waiter_ptr[i], waiter_ptr[i + 1]):
            s.wait_list[first_wait + j] = waiter_ids[j]
            s.waiter.outstanding[waiter_ids[j]] += 1
        push_start(s, flow)


@kernel
def move_lists(s: FlowState, old: FlowState) -> None:
    """Copy the links' lists of ``old`` to the places that ``s.list_ptr`` gives."""
    for link in range(len(s.level)):
        for i in range(s.link.list_len[link]):
            place, before = s.link.list_ptr[link] + i, old.link.list_ptr[link] + i
            s.place.flow[place] = old.place.flow[before]
            s.place.weight[place] = old.place.weight[before]
            s.place.entry[place] = old.place.entry[before]
            s.place.bottleneck[place] = old.place.bottleneck[before]
            s.place.route[place] = old.place.route[before]
            s.place.length[place] = old.place.length[before]
            s.entry.place[s.place.entry[place]] = place


@inlined
def attach(s: FlowState, flow: int) -> None:
    """Put a flow on the lists of its links, without a bottleneck yet."""
    s.tally[N_HOMELESS] += 1
    s.flow.bottleneck[flow] = NO_LINK
    for entry in range(s.flow.entry_ptr[flow], s.flow.entry_ptr[flow] + s.flow.entry_len[flow]):
        link, weight = s.entry.link[entry], s.entry.weight[entry]
        place = s.link.list_ptr[link] + s.link.list_len[link]
        s.link.list_len[link] += 1
        s.place.flow[place] = flow
        s.place.weight[place] = weight
        s.place.entry[place] = entry
        s.place.bottleneck[place] = NO_LINK
        s.place.route[place] = s.flow.entry_ptr[flow]
        s.place.length[place] = s.flow.entry_len[flow]
        s.entry.place[entry] = place
        make_own(s, link, place)
        s.link.own_weight[link] += weight
        touch(s, link)


@inlined
def detach(s: FlowState, flow: int) -> None:
    """Take a flow in progress from the lists of its links; its bytes left stand in ``due``."""
    before, left, rate = leave_level(s, flow)
    s.flow.bottleneck[flow] = NO_LINK
    s.due[flow] = left
    for entry in range(s.flow.entry_ptr[flow], s.flow.entry_ptr[flow] + s.flow.entry_len[flow]):
        link, weight = s.entry.link[entry], s.entry.weight[entry]
        if before != link and before != NO_LINK:
            s.foreign[link] -= weight * rate
            if len(s.reach.length) > 0:
                reach_less(s, before, link, weight)
        else:
            make_foreign(s, link, s.entry.place[entry])
            s.link.own_weight[link] -= weight
        s.link.list_len[link] -= 1
        swap_places(s, s.entry.place[entry], s.link.list_ptr[link] + s.link.list_len[link])
        s.link.reserved[link] -= 1
        if s.link.list_len[link] == 0:
            s.foreign[link] = 0.0
            s.link.own_weight[link] = 0.0
        touch(s, link)


@inlined
def end_wait(s: FlowState, flow: int) -> None:
    """Count a flow off at those who wait for it."""
    for i in range(s.flow.wait_ptr[flow], s.flow.wait_ptr[flow] + s.flow.wait_len[flow]):
        waiter = s.wait_list[i]
        s.waiter.outstanding[waiter] -= 1
        if s.waiter.outstanding[waiter] == 0 and not s.waiter.done[waiter]:
            s.waiter.done[waiter] = 1
            s.done_waiter[s.tally[N_DONE]] = waiter
            s.tally[N_DONE] += 1


@inlined
def finish_flow(s: FlowState, flow: int) -> None:
    """End a flow now."""
    if s.flow.phase[flow] == LIVE:
        detach(s, flow)
        s.tally[N_LIVE] -= 1
    s.flow.phase[flow] = FINISHED
    s.flow.finish[flow] = s.clock[NOW]
    s.due[flow] = 0.0
    end_wait(s, flow)


@inlined
def take_part(s: FlowState, flow: int) -> None:
    """Let a flow take part from now on; without bytes or links to load it is done at once."""
    if s.due[flow] == 0.0 or s.flow.entry_len[flow] == 0:
        for entry in range(s.flow.entry_ptr[flow], s.flow.entry_ptr[flow] + s.flow.entry_len[flow]):
            s.link.reserved[s.entry.link[entry]] -= 1
        finish_flow(s, flow)
        return
    s.flow.phase[flow] = LIVE
    s.tally[N_LIVE] += 1
    attach(s, flow)


@inlined
def start_due(s: FlowState) -> None:
    """Let all flows take part whose start has come."""
    now, pending, start = s.clock[NOW], s.pending_flow, s.flow.start
    n = s.tally[N_PENDING]
    due = 0
    while due < n and start[pending[due]] <= now:
        due += 1
    everybody = due == n  # then the heap need not be kept in order
    if everybody:
        s.tally[N_PENDING] = 0
    for i in range(n):
        if everybody:
            flow = pending[i]
        elif start[pending[0]] <= now:
            flow = pop_start(s)
        else:
            break
        take_part(s, flow)


@kernel
def start_flow(s: FlowState, flow: int) -> None:
    """Let a single flow take part from now on."""
    take_part(s, flow)


@njit(cache=True)
def cancel_flow(s: FlowState, flow: int) -> None:
    """Take a flow that waits or is in progress out of the network; it counts as gone for its waiters."""
    if s.flow.phase[flow] == LIVE:
        detach(s, flow)
        s.tally[N_LIVE] -= 1
    else:
        forget_start(s, flow)
        for entry in range(s.flow.entry_ptr[flow], s.flow.entry_ptr[flow] + s.flow.entry_len[flow]):
            s.link.reserved[s.entry.link[entry]] -= 1
    s.flow.phase[flow] = CANCELLED
    end_wait(s, flow)


@kernel
def change_capacity(s: FlowState, link: int, value: float) -> None:
    """Give a link another capacity from now on."""
    s.link.capacity[link] = value
    touch(s, link)


@kernel
def change_route(s: FlowState, flow: int, first_entry: int, links: Ints, weights: Floats, cap_link: int) -> None:
    """Move what is left of a flow to another route, whose entries are written from ``first_entry`` on."""
    if s.flow.phase[flow] == LIVE:
        detach(s, flow)
    else:
        for entry in range(s.flow.entry_ptr[flow], s.flow.entry_ptr[flow] + s.flow.entry_len[flow]):
            s.link.reserved[s.entry.link[entry]] -= 1
    s.flow.entry_ptr[flow] = first_entry
    lay_route(s, flow, links, weights, cap_link)
