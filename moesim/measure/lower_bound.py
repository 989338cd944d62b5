"""What no schedule of a layer's flows can beat, and what that is made of.

It takes the links' peaks and the experts' roofline, and leaves out latency, set-up and what flows do to each other.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moesim.cluster import Fabric
from moesim.timeline import LayerTrace
from moesim.traffic import Floats, Ints, PhaseFlows, Ptrs

_ORDER = ("dispatch link", "routed experts", "combine link")
_WAITED_FOR, _WAIT_FOR_IT = "bytes that the rank waits for / peak", "bytes that wait for the rank / peak"
_ALL_BYTES, _ROOFLINE = "all bytes of the link / peak", "max(FLOPs / peak, bytes / bandwidth)"


class BoundPart(NamedTuple):
    """One term of a lower bound.

    Attributes:
        name: ``dispatch link``, ``routed experts`` or ``combine link``, in this order in a bound.
        seconds: that it takes at least.
        rank: whose bytes or experts these are; None where the bytes of a link are of several ranks.
        link: name of the link; None for the experts.
        formula: how the seconds come about, in words.
    """

    name: str
    seconds: float
    rank: int | None
    link: str | None
    formula: str


class LowerBound(NamedTuple):
    """Seconds that a layer takes at least, and the parts that sum to them; a part of no time is left out."""

    seconds: float
    parts: tuple[BoundPart, ...]


class _Busiest(NamedTuple):
    """Of each rank's own links the busiest: seconds at its peak, and which one, -1 for none; [ranks]."""

    seconds: Floats
    link: NDArray[np.int64]


class _Whole(NamedTuple):
    """The link that bounds most with all its bytes: seconds of these, and the rank that comes after or before them."""

    seconds: float
    link: int
    rank: int


def lower_bound(trace: LayerTrace, fabric: Fabric, experts_floor_s: Floats) -> LowerBound:
    """Return the longest of three kinds of chains, none of which a schedule can shorten.

    1. A rank: the busiest own dispatch port's bytes over its peak, the floor of its routed experts, the busiest own
       combine port's bytes sent over its peak. A port is a link that ends at the rank's GPU; its own bytes are those
       that the rank waits for in dispatch, and those that wait for it in combine. Where a barrier makes every rank
       wait for all bytes, or all bytes for every rank, the busiest shared link counts as a port of each.
    2. A dispatch link: all its bytes over its peak. Some flow is the last on it, and whoever waits for that one has
       experts and combine, as in 1, still to come. Schedules choose which flow that is, so the least counts.
    3. A combine link: some flow is the first on it, and all ranks that it waits for have dispatch and experts, as in
       1, behind them; of all flows the least counts. Then all bytes of the link over its peak.

    The links of 2 and 3 are the shared ones, which end at no rank's GPU, of any tier. Where ranks post bytes in
    dispatch, nobody at a port need wait for them: then ports are links of 2, too. A cut of several links needs no
    chain of its own, since routes are fixed: its bytes over its capacity are no more than the same of its busiest
    link, whatever the capacities, and what is the least of all its flows is no more than the least of that link's.

    Args:
        trace: of the layer.
        fabric: its links.
        experts_floor_s: least time of each rank's routed experts, [ranks].
    """
    out, back = trace.dispatch.flows, trace.combine.flows
    source, target = fabric.link_source_rank, fabric.link_target_rank
    shared = (source < 0) & (target < 0)
    gates = back.gate_ptr, back.gate_ranks
    got = _busiest(fabric, out, *out.waiting, out.all_ranks_leave, shared, (target, source))
    sent = _busiest(fabric, back, *gates, back.all_ranks_gate, shared, (source,))

    def part(name: str, seconds: float, rank: int | None, link: int, formula: str) -> BoundPart:
        return BoundPart(name, float(seconds), rank, fabric.link_names[link] if link >= 0 else None, formula)

    def dispatch(rank: int) -> BoundPart:
        return part("dispatch link", got.seconds[rank], rank, got.link[rank], _WAITED_FOR)

    def experts(rank: int) -> BoundPart:
        return part("routed experts", experts_floor_s[rank], rank, -1, _ROOFLINE)

    def combine(rank: int) -> BoundPart:
        return part("combine link", sent.seconds[rank], rank, sent.link[rank], _WAIT_FOR_IT)

    rank = int(np.argmax(experts_floor_s + got.seconds + sent.seconds))
    chains = [(experts(rank), dispatch(rank), combine(rank))]
    # Where a barrier holds all ranks, the first kind contains the others.
    if not out.all_ranks_leave:
        links = shared if out.leave_ptr is None else np.ones(fabric.n_links, np.bool_)
        for last in _whole_link(fabric, out, *out.waiting, experts_floor_s + sent.seconds, links):
            whole = part("dispatch link", last.seconds, None, last.link, _ALL_BYTES)
            chains.append((experts(last.rank), combine(last.rank), whole))
    if not back.all_ranks_gate:
        for first in _whole_link(fabric, back, *gates, experts_floor_s + got.seconds, shared):
            whole = part("combine link", first.seconds, None, first.link, _ALL_BYTES)
            chains.append((experts(first.rank), dispatch(first.rank), whole))
    # Of equally long ones the rank's own.
    seconds, chain = max(((sum(one.seconds for one in chain), chain) for chain in chains), key=lambda one: one[0])
    in_order = sorted(chain, key=lambda one: _ORDER.index(one.name))
    return LowerBound(seconds, tuple(one for one in in_order if one.seconds > 0))


def _busiest(
    fabric: Fabric,
    flows: PhaseFlows,
    ptr: Ptrs,
    ranks: Ints,
    everybody: bool,
    shared: NDArray[np.bool_],
    ends: tuple[NDArray[np.int64], ...],
) -> _Busiest:
    """Find each rank's busiest port, counting the flows in whose row of ranks (CSR) it stands; all if ``everybody``.

    ``ends`` are the ranks at the ends of the links that count as its ports, -1 for none, [links] each.
    """
    rank, link = np.concatenate(ends), np.tile(np.arange(fabric.n_links), len(ends))
    seconds = np.concatenate([_bytes_at(flows, end, ptr, ranks, everybody) / fabric.capacity for end in ends])
    if everybody and shared.any():
        at = int(np.argmax(np.where(shared, seconds[: fabric.n_links], -1.0)))
        rank, link = np.append(rank, np.arange(fabric.n_ranks)), np.append(link, np.full(fabric.n_ranks, at))
        seconds = np.append(seconds, np.full(fabric.n_ranks, seconds[at]))
    found = _Busiest(np.zeros(fabric.n_ranks), np.full(fabric.n_ranks, -1))
    own = np.flatnonzero((rank >= 0) & (seconds > 0))
    # The largest come last and stay.
    own = own[np.argsort(seconds[own], kind="stable")]
    found.seconds[rank[own]], found.link[rank[own]] = seconds[own], link[own]
    return found


def _whole_link(
    fabric: Fabric, flows: PhaseFlows, ptr: Ptrs, ranks: Ints, other_s: Floats, links: NDArray[np.bool_]
) -> list[_Whole]:
    """Find which of some links takes longest with its bytes and ``other_s`` [ranks]; none where they carry nothing.

    Of a flow counts the slowest rank in its row (CSR), of a link the flow for which that is least.
    """
    flow = np.repeat(np.arange(flows.n_flows), np.diff(flows.route_ptr))
    carries = np.flatnonzero(links[flows.route_links] & (flows.size[flow] * flows.share > 0))
    if not len(carries):
        return []
    flow, link = flow[carries], flows.route_links[carries]
    other = np.maximum.reduceat(other_s[ranks], ptr[:-1])[flow]
    least = np.full(fabric.n_links, np.inf)
    np.minimum.at(least, link, other)
    seconds = flows.link_wire_bytes(fabric.n_links) / fabric.capacity
    at = int(np.argmax(np.where(np.isfinite(least), seconds + least, -np.inf)))
    on_it = np.flatnonzero(link == at)
    its_flow = flow[on_it[np.argmin(other[on_it])]]
    row = ranks[ptr[its_flow] : ptr[its_flow + 1]]
    return [_Whole(float(seconds[at]), at, int(row[np.argmax(other_s[row])]))]


def _bytes_at(flows: PhaseFlows, rank_of_link: NDArray[np.int64], ptr: Ptrs, ranks: Ints, everybody: bool) -> Floats:
    """Bytes on each link of the flows in whose row of ranks (CSR) the one at the link stands, [links]."""
    if everybody:
        return flows.link_wire_bytes(len(rank_of_link))
    flow = np.repeat(np.arange(flows.n_flows), np.diff(flows.route_ptr))
    here, found = rank_of_link[flows.route_links], np.zeros(len(flow), np.bool_)
    # One place of the rows after the other: few flows have long ones.
    place, left = 0, np.flatnonzero(here >= 0)
    while len(left := left[~found[left] & (ptr[flow[left]] + place < ptr[flow[left] + 1])]):
        found[left] = ranks[ptr[flow[left]] + place] == here[left]
        place += 1
    on_link = np.where(found, flows.size[flow] * flows.share, 0.0)
    return np.bincount(flows.route_links, weights=on_link, minlength=len(rank_of_link)).astype(np.float64)
