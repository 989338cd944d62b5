"""Finish times of a given set of flows: one call around the FlowNetwork that the timeline runs.

Equal flows are solved as one: same links, weights, size, start and cap means the same rate at all times.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim import csr
from moesim.errors import InputError
from moesim.network import checks
from moesim.network.exact.flow_network import FlowNetwork
from moesim.network.exact.state import Floats, Ints, Pointers
from moesim.network.flow_batch import FlowBatch
from moesim.network.stepped.solve_within import solve_within

Hashes = NDArray[np.uint64]


def classes_of_equal(
    ptr: Pointers, links: Ints, weight: Floats, size: Floats, start: Floats, cap: Floats
) -> tuple[Pointers, Pointers] | None:
    """Return the first flow of each class of equal flows, and the class of each flow; None if no two are equal.

    Routes are equal when they name the same links with the same weights in the same order.
    """
    n = len(size)
    columns = [_bits(size), _bits(start), _bits(cap), _route_hashes(ptr, links, weight)]
    key = np.zeros(n, np.uint64)
    for column in columns:
        key = _mixed(key ^ column)
    ordered = np.sort(key)
    if (ordered[1:] != ordered[:-1]).all():
        return None
    _, first, which = np.unique(key, return_index=True, return_inverse=True)
    # A hash may deceive: whoever differs from the first of its class stays by itself.
    like = first[which]
    length = np.diff(ptr)
    same = (length == length[like]) & (size == size[like]) & (start == start[like]) & (cap == cap[like])
    entry = np.arange(ptr[-1])
    flow = csr.owners(ptr)
    twin = np.where(same[flow], ptr[like[flow]] + entry - ptr[flow], entry)
    differs = (links[entry] != links[twin]) | (weight[entry] != weight[twin])
    same &= np.bincount(flow, weights=differs, minlength=n) == 0
    representative = np.where(same, like, np.arange(n))
    firsts, classes = np.unique(representative, return_inverse=True)
    return firsts.astype(np.int64), classes.astype(np.int64)


def _bits(values: Floats) -> Hashes:
    return (values + 0.0).view(np.uint64)  # -0.0 counts as 0.0


def _mixed(values: Hashes) -> Hashes:
    """Spread every bit over all others (the finaliser of splitmix64, Steele, Lea and Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _route_hashes(ptr: Pointers, links: Ints, weight: Floats) -> Hashes:
    place = np.arange(len(links)) - csr.spread(ptr[:-1], ptr)
    each = _mixed(_mixed(links.astype(np.uint64) ^ (place.astype(np.uint64) << np.uint64(32))) ^ _bits(weight))
    total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(each)])
    return np.asarray(total[ptr[1:]] - total[ptr[:-1]], np.uint64)


def solve_flows(
    capacity: ArrayLike,
    latency: ArrayLike,
    route_ptr: ArrayLike,
    route_links: ArrayLike,
    size: ArrayLike,
    start: ArrayLike,
    weight: ArrayLike | None = None,
    rate_cap: ArrayLike | None = None,
    capacity_events: tuple[ArrayLike, ArrayLike, ArrayLike] | None = None,
    tolerance: float = 0.0,
) -> Floats:
    """Return the finish time of each flow, seconds, under max-min fair sharing, exact unless a tolerance is given.

    The sorted rates x_f are lexicographically largest subject to ``x_f <= rate_cap[f]`` and, on every link,
    ``sum over flows of weight * x_f <= capacity`` (Bertsekas and Gallager, Data Networks, 6.5.2, with
    weights).

    ``capacity[links]`` bytes/s and ``latency[links]`` seconds; flow f uses
    ``route_links[route_ptr[f]:route_ptr[f + 1]]``, ``weight`` aligned with it (default 1); ``size[flows]``
    bytes. A flow takes part from ``start[f]`` plus the sum of its links' latencies on; an empty route, or
    size 0, finishes then. ``capacity_events`` = (time[], link[], new_capacity[]) in any order. With a ``tolerance`` a
    million flows take seconds, in steps of at most that share of the busiest link's time; ``solve_within`` also tells
    the limits of each finish time.

    Raises InputError for shapes that do not fit, ids out of range, NaN or negative values, and for flows that
    can never finish because a link of theirs ends with capacity 0.
    """
    flows = FlowBatch(route_ptr, route_links, size, start, weight, rate_cap).checked(np.size(capacity))
    ptr, links, sizes, begin, weights, caps, _, _ = flows
    n = len(sizes)
    delay = checks.numbers(latency, "latency", np.size(capacity), "link")
    takes_part = begin + np.bincount(csr.owners(ptr), delay[links], minlength=n)
    if tolerance:
        if capacity_events is not None:
            raise InputError("takes no capacity_events", "tolerance", "use tolerance 0")
        return solve_within(capacity, ptr, links, sizes, takes_part, tolerance, weights, caps).finish
    times, changed, values = _events(capacity_events, np.size(capacity))
    found = classes_of_equal(ptr, links, weights, sizes, takes_part, caps)
    first, which = (np.arange(n), np.arange(n)) if found is None else found
    if found is not None:
        # One flow stands for its class: it loads its links as often as the class has flows.
        ptr, entries = csr.rows_of(ptr, first)
        links, weights = links[entries], weights[entries] * csr.spread(np.bincount(which), ptr)
    network = FlowNetwork(capacity, now=min(takes_part.min(initial=0.0), times.min(initial=0.0)))
    handle = network.start(FlowBatch(ptr, links, sizes[first], takes_part[first], weights, caps[first]))
    for time, link, value in zip(times, changed, values, strict=True):
        network.run(until=time)
        network.set_capacity(link, value)
    network.run(until=np.inf)
    finish = network.finish(handle)[which]
    stalled = np.flatnonzero(np.isnan(finish))
    if len(stalled):
        flow = int(stalled[0])
        link = int(network.bottlenecks(handle)[which[flow]])
        where = f"capacity 0 of link {link}" if link >= 0 else "its rate cap of 0"
        raise InputError(f"flow {flow} can never finish: {where} holds it", "capacity", "give it a way to end")
    return np.asarray(finish, np.float64)


def _events(
    capacity_events: tuple[ArrayLike, ArrayLike, ArrayLike] | None, n_links: int
) -> tuple[Floats, Ints, Floats]:
    if capacity_events is None:
        return np.zeros(0), np.zeros(0, np.int32), np.zeros(0)
    if len(capacity_events) != 3:
        raise InputError("is not (time[], link[], new_capacity[])", "capacity_events")
    times = checks.numbers(
        capacity_events[0], "capacity_events time", np.size(capacity_events[0]), "event", least=-np.inf
    )
    links = checks.ids(capacity_events[1], "capacity_events link", n_links)
    values = checks.numbers(capacity_events[2], "capacity_events capacity", len(times), "event")
    if len(links) != len(times):
        raise InputError(f"has {len(times)} times and {len(links)} links", "capacity_events")
    order = np.argsort(times, kind="stable")
    return times[order], links[order], values[order]
