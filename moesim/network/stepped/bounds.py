"""Proven limits of when flows end under max-min fair sharing, without simulating them.

*Never later.* While a flow f of ``b`` bytes is in progress, at every instant either it runs at its cap or one of its
links is full and no flow on it is faster (this is what max-min means). Let ``a_l`` be the bytes that f carries in the
instants that go to link l. In these no flow carries more than f does, nor more than it has, so together they last at
most

    G_l(a_l) = sum over flows g on l of weight_gl * min(size_g, a_l) / capacity_l

seconds, and f is done after at most the largest ``sum of G_l(a_l)`` over all ways to split ``b`` into ``a_l``. On one
link this is what happens. The functions are concave, so any ``x`` gives a limit that holds,

    x b + sum over the links of f of max over a of (G_l(a) - x a)

the least over x is the limit above, and x need not be found exactly. Neither starts nor the order of events come in;
other flows may start whenever they like, as long as they are among those counted.

*Never earlier.* A flow alone on its links; and the last flow of a link not before the link can have carried all of it.
"""

# mypy: allow-untyped-decorators

import numpy as np
from numpy.typing import NDArray

from moesim import csr
from moesim.network.exact.state import Floats, Ints, Pointers
from moesim.network.kernel_options import inlined, kernel
from moesim.network.stepped.filling import list_flows

HALVINGS = 10
"""Of the range in which x is looked for, on a logarithmic scale: 1 % of x, some 0.01 % of the limit."""
LEAST_X = 1e-4
"""Where that range begins, as a share of where it ends."""
ROUNDING = 1e-12
"""Share by which a limit is moved outwards, for the roundings in the sums."""


def longest_time(capacity: Floats, ptr: Pointers, links: Ints, weight: Floats, size: Floats, cap: Floats) -> Floats:
    """Return the seconds from its start within which each flow has ended for certain, [flows].

    Args:
        capacity: bytes/s, above 0, [links].
        ptr, links, weight: links of each flow and what it loads them with (CSR).
        size: bytes, [flows]; every flow that may share a link with another in progress has to be here.
        cap: bytes/s, above 0, [flows].
    """
    n_links, order = len(capacity), np.argsort(size, kind="stable")
    list_ptr, flow, load = np.zeros(n_links + 1, np.int64), np.empty(len(links), np.int32), np.empty(len(links))
    list_flows(order, ptr, links, weight, list_ptr, flow, load)
    at = size[flow]
    slope, value = np.empty((2, len(links)))
    _lay_curves(list_ptr, at, load / csr.spread(capacity, list_ptr), slope, value)
    steepest = np.bincount(links, weights=weight, minlength=n_links) / capacity
    longest = np.empty(len(size))
    _longest(ptr, links, weight, size, cap, list_ptr, at, slope, value, steepest, longest)
    return longest * (1.0 + ROUNDING)


def shortest_time(capacity: Floats, ptr: Pointers, links: Ints, weight: Floats, size: Floats, cap: Floats) -> Floats:
    """Return the seconds that each flow takes at least: alone on its links, [flows]; arguments as above."""
    per_byte, flow = 1.0 / cap, csr.owners(ptr)
    np.maximum.at(per_byte, flow, weight / capacity[links])
    loaded = np.bincount(flow, weights=weight, minlength=len(size)) > 0
    return np.where(loaded, size * per_byte, 0.0) * (1.0 - ROUNDING)


def links_done(
    capacity: Floats, ptr: Pointers, links: Ints, weight: Floats, size: Floats, start: Floats
) -> NDArray[np.float64]:
    """Return the instant before which each link cannot have carried its bytes, -inf without any, [links]."""
    flow = csr.owners(ptr)
    carried = weight * size[flow]
    first = np.full(len(capacity), np.inf)
    np.minimum.at(first, links[carried > 0], start[flow[carried > 0]])
    total = np.bincount(links, weights=carried, minlength=len(capacity))
    return np.where(total > 0, first + total / capacity * (1.0 - ROUNDING), -np.inf)


@kernel
def _lay_curves(list_ptr: Pointers, at: Floats, steepness: Floats, slope: Floats, value: Floats) -> None:
    """Write each link's G at the sizes ``at`` of its flows (ascending), and its slope behind each."""
    for link in range(len(list_ptr) - 1):
        begin, end = list_ptr[link], list_ptr[link + 1]
        behind = 0.0
        for i in range(end - 1, begin - 1, -1):
            slope[i] = behind
            behind += steepness[i]
        total, before = 0.0, 0.0
        for i in range(begin, end):
            total += (at[i] - before) * (slope[i] + steepness[i])
            before = at[i]
            value[i] = total


@inlined
def _best_on(x: float, begin: int, end: int, slope: Floats) -> int:
    """First size behind which G is no steeper than ``x``; the last at the latest."""
    end -= 1
    while begin < end:
        middle = (begin + end) // 2
        if slope[middle] <= x:
            end = middle
        else:
            begin = middle + 1
    return begin


@kernel
def _longest(
    ptr: Pointers,
    links: Ints,
    weight: Floats,
    size: Floats,
    cap: Floats,
    list_ptr: Pointers,
    at: Floats,
    slope: Floats,
    value: Floats,
    steepest: Floats,
    longest: Floats,
) -> None:
    """Write the least limit found for each flow into ``longest``."""
    for flow in range(len(size)):
        top = 0.0
        for entry in range(ptr[flow], ptr[flow + 1]):
            if weight[entry] > 0.0:
                top = max(top, steepest[links[entry]])
        if top == 0.0 or size[flow] == 0.0:
            longest[flow] = 0.0
            continue
        capped = 1.0 / cap[flow]
        top = max(top, capped)
        best = top * size[flow]
        low, high = max(capped, LEAST_X * top), top
        for _ in range(HALVINGS):
            x = (low * high) ** 0.5
            limit, taken = x * size[flow], 0.0
            for entry in range(ptr[flow], ptr[flow + 1]):
                link = links[entry]
                if weight[entry] > 0.0 and steepest[link] > x:
                    i = _best_on(x, list_ptr[link], list_ptr[link + 1], slope)
                    limit += value[i] - x * at[i]
                    taken += at[i]
            best = min(best, limit)
            if taken > size[flow]:
                low = x
            else:
                high = x
        longest[flow] = best
