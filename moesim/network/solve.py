"""Finish times of a given set of flows: one call around the FlowNetwork that the timeline runs."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from moesim import csr
from moesim.errors import InputError
from moesim.network import checks
from moesim.network.equal import classes_of_equal
from moesim.network.exact.flow_network import FlowNetwork
from moesim.network.exact.state import Floats, Ints
from moesim.network.flow_batch import FlowBatch
from moesim.network.stepped.solve_within import solve_within


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
