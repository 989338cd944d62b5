"""Equal flows as one: same links, weights, size, start and cap means the same rate at all times."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moesim import csr
from moesim.network.exact.state import Floats, Ints, Pointers

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
