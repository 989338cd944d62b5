"""Max-min rates of many flows from scratch, by water filling in order of the links' levels (numba kernels).

For those who solve now and then, where ``max_min`` follows every event: a link at a time, lowest level first. A flow
with a cap below the level at hand stops there and leaves the rest to the others. Levels only rise, so what a link had
when it was last looked at is a bound, and a link whose turn comes is put back if it has risen.
"""

# mypy: allow-untyped-decorators

from __future__ import annotations

from moesim.network.compiling import inlined, kernel
from moesim.network.lists import INF
from moesim.network.state import Floats, Ints, Pointers


@inlined
def sink(heap: Ints, level: Floats, i: int, n: int) -> None:
    """Move the link at position ``i`` of a heap of ``n`` down to where its level belongs."""
    link = heap[i]
    while 2 * i + 1 < n:
        child = 2 * i + 1
        if child + 1 < n and level[heap[child + 1]] < level[heap[child]]:
            child += 1
        if level[heap[child]] >= level[link]:
            break
        heap[i] = heap[child]
        i = child
    heap[i] = link


@kernel
def fill(
    capacity: Floats,
    route_ptr: Pointers,
    route_links: Ints,
    weight: Floats,
    list_ptr: Pointers,
    list_flows: Ints,
    cap: Floats,
    rate: Floats,
    level: Floats,
    room: Floats,
    load: Floats,
    waiting: Ints,
    heap: Ints,
) -> None:
    """Find the max-min fair rate of every flow.

    Args:
        capacity: of each link.
        route_ptr, route_links, weight: links of each flow (CSR).
        list_ptr, list_flows: flows of each link (CSR).
        cap: most that a flow may run, [flows].
        rate: takes the rates; a flow takes part where the rate is negative, [flows].
        level: takes the levels of the links, inf where one is not full, [links].
        room, load, waiting, heap: space for a number per link.
    """
    for link in range(len(capacity)):
        room[link], load[link], waiting[link] = capacity[link], 0.0, 0
    for flow in range(len(rate)):
        if rate[flow] < 0.0:
            for entry in range(route_ptr[flow], route_ptr[flow + 1]):
                load[route_links[entry]] += weight[entry]
                waiting[route_links[entry]] += 1
    n = 0
    for link in range(len(capacity)):
        level[link] = INF
        if waiting[link] > 0:
            level[link] = room[link] / load[link]
            heap[n] = link
            n += 1
    for i in range(n // 2 - 1, -1, -1):
        sink(heap, level, i, n)
    while n > 0:
        link = heap[0]
        begin, end = list_ptr[link], list_ptr[link + 1]
        if waiting[link] == 0:  # its flows are held back elsewhere
            level[link] = INF
        else:
            now = max(level[link], room[link] / load[link])
            if now > level[link]:
                level[link] = now
                sink(heap, level, 0, n)
                continue
            capped = False
            for everyone in range(2):  # first those whose cap is lower; only if there is none the rest
                if everyone and capped:
                    break
                for i in range(begin, end):
                    flow = list_flows[i]
                    if rate[flow] >= 0.0 or (not everyone and cap[flow] >= now):
                        continue
                    capped = not everyone
                    rate[flow] = now if everyone else cap[flow]
                    for entry in range(route_ptr[flow], route_ptr[flow + 1]):
                        other = route_links[entry]
                        room[other] -= weight[entry] * rate[flow]
                        load[other] -= weight[entry]
                        waiting[other] -= 1
            if capped:
                continue
        n -= 1
        heap[0] = heap[n]
        sink(heap, level, 0, n)


@kernel
def lowest_level(route_ptr: Pointers, route_links: Ints, level: Floats, lowest: Floats) -> None:
    """Write the lowest level among the links of each flow, inf where none is full, into ``lowest[flows]``."""
    for flow in range(len(lowest)):
        lowest[flow] = INF
        for entry in range(route_ptr[flow], route_ptr[flow + 1]):
            lowest[flow] = min(lowest[flow], level[route_links[entry]])
