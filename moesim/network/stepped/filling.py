"""Max-min rates of many flows from scratch, by water filling in order of the links' levels (numba kernels).

For those who solve now and then, where ``max_min`` follows every event: a link at a time, lowest level first. A flow
with a cap below the level at hand stops there and leaves the rest to the others. Levels only rise, so what a link had
when it was last looked at is a bound, and a link whose turn comes is put back if it has risen.
"""

# mypy: allow-untyped-decorators

import numpy as np
from numpy.typing import NDArray

from moesim.network.exact.lists import INF
from moesim.network.exact.state import Floats, Ints, Pointers
from moesim.network.kernel_options import inlined, kernel


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
def list_flows(
    order: Pointers,
    route_ptr: Pointers,
    route_links: Ints,
    weight: Floats,
    list_ptr: Pointers,
    list_flow: Ints,
    list_weight: Floats,
) -> None:
    """List the flows of each link, in the order given, and what they load it with (CSR).

    ``list_ptr`` comes as zeros.
    """
    n = len(list_ptr) - 1
    for entry in range(len(route_links)):
        list_ptr[route_links[entry]] += 1
    total = 0
    for link in range(n):
        total, list_ptr[link] = total + list_ptr[link], total
    for i in range(len(order)):
        flow = order[i]
        for entry in range(route_ptr[flow], route_ptr[flow + 1]):
            place = list_ptr[route_links[entry]]
            list_flow[place], list_weight[place] = flow, weight[entry]
            list_ptr[route_links[entry]] = place + 1
    for link in range(n, 0, -1):  # each stands at its end now, which is where the next begins
        list_ptr[link] = list_ptr[link - 1]
    list_ptr[0] = 0


@kernel
def held_by(
    capacity: Floats,
    route_ptr: Pointers,
    route_links: Ints,
    weight: Floats,
    level: Floats,
    cap: Floats,
    lowest: Floats,
    held: Ints,
) -> None:
    """Write the lowest level among the links of each flow (inf where none is full), and the link that has it.

    ``held`` is -1 for a flow whose cap is lower; where nothing holds a flow back, the slowest link of its route.
    """
    for flow in range(len(lowest)):
        lowest[flow], held[flow] = INF, -1
        slowest, steepest = -1, 0.0
        for entry in range(route_ptr[flow], route_ptr[flow + 1]):
            link = route_links[entry]
            if level[link] < lowest[flow]:
                lowest[flow], held[flow] = level[link], link
            if weight[entry] / capacity[link] > steepest:
                slowest, steepest = link, weight[entry] / capacity[link]
        if cap[flow] < lowest[flow]:
            held[flow] = -1
        elif held[flow] < 0:
            held[flow] = slowest


@kernel
def lift(
    capacity: Floats,
    list_ptr: Pointers,
    list_flow: Ints,
    list_weight: Floats,
    active: NDArray[np.bool_],
    ends: NDArray[np.bool_],
    left: Floats,
    step: float,
    lasts: Floats,
) -> None:
    """Where all flows of a link end in a step, let the last end when the link can have carried what they had left.

    ``lasts``: seconds from the step's begin, [flows].
    """
    for link in range(len(capacity)):
        last, load = -1, 0.0
        for i in range(list_ptr[link], list_ptr[link + 1]):
            flow = list_flow[i]
            if active[flow]:
                if not ends[flow]:
                    last = -1
                    break
                load += list_weight[i] * left[flow]
                if last < 0 or lasts[flow] > lasts[last]:
                    last = flow
        if last >= 0:
            lasts[last] = max(lasts[last], min(load / capacity[link], step))
