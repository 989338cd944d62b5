"""What no schedule of a layer's flows can beat, and what that is made of.

It takes the links' peaks and the experts' roofline, and leaves out latency, set-up and what flows do to each other.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moesim import csr
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
    return LayerBytes(fabric, trace.dispatch.flows, trace.combine.flows).bound(fabric.capacity, experts_floor_s)


class LayerBytes:
    """What the flows of a layer put on every link: its bound at any capacities and floors follows from it."""

    def __init__(self, fabric: Fabric, out: PhaseFlows, back: PhaseFlows) -> None:
        """Add up the bytes of dispatch, ``out``, and combine, ``back``."""
        source, target = fabric.link_source_rank, fabric.link_target_rank
        shared, gates = (source < 0) & (target < 0), (back.gate_ptr, back.gate_ranks)
        self._names = fabric.link_names
        self._got = _Ports(fabric, out, *out.waiting, out.all_ranks_leave, shared, (target, source))
        self._sent = _Ports(fabric, back, *gates, back.all_ranks_gate, shared, (source,))
        posted = shared if out.leave_ptr is None else np.ones(fabric.n_links, np.bool_)
        self._last = None if out.all_ranks_leave else _WholeLinks(fabric, out, *out.waiting, posted)
        self._first = None if back.all_ranks_gate else _WholeLinks(fabric, back, *gates, shared)

    def bound(self, capacity: Floats, experts_floor_s: Floats) -> LowerBound:
        """Return the bound of ``lower_bound`` at some capacities, [links], and floors of the experts, [ranks]."""
        names = self._names
        got, sent = (ports.busiest(capacity, len(experts_floor_s)) for ports in (self._got, self._sent))

        def part(name: str, seconds: float, rank: int | None, link: int, formula: str) -> BoundPart:
            return BoundPart(name, float(seconds), rank, names[link] if link >= 0 else None, formula)

        def dispatch(rank: int) -> BoundPart:
            return part("dispatch link", got.seconds[rank], rank, got.link[rank], _WAITED_FOR)

        def experts(rank: int) -> BoundPart:
            return part("routed experts", experts_floor_s[rank], rank, -1, _ROOFLINE)

        def combine(rank: int) -> BoundPart:
            return part("combine link", sent.seconds[rank], rank, sent.link[rank], _WAIT_FOR_IT)

        rank = int(np.argmax(experts_floor_s + got.seconds + sent.seconds))
        chains = [(experts(rank), dispatch(rank), combine(rank))]
        # Where a barrier holds all ranks, the first kind contains the others.
        if self._last is not None:
            for last in self._last.longest(capacity, experts_floor_s + sent.seconds):
                whole = part("dispatch link", last.seconds, None, last.link, _ALL_BYTES)
                chains.append((experts(last.rank), combine(last.rank), whole))
        if self._first is not None:
            for first in self._first.longest(capacity, experts_floor_s + got.seconds):
                whole = part("combine link", first.seconds, None, first.link, _ALL_BYTES)
                chains.append((experts(first.rank), dispatch(first.rank), whole))
        # Of equally long ones the rank's own.
        seconds, chain = max(((sum(one.seconds for one in chain), chain) for chain in chains), key=lambda one: one[0])
        in_order = sorted(chain, key=lambda one: _ORDER.index(one.name))
        return LowerBound(seconds, tuple(one for one in in_order if one.seconds > 0))

    def chains_s(self, capacity: Floats, experts_floor_s: Floats) -> Floats:
        """Return how long each rank's own chain takes at least, the first kind of ``lower_bound``, [ranks]."""
        got, sent = (ports.busiest(capacity, len(experts_floor_s)) for ports in (self._got, self._sent))
        return experts_floor_s + got.seconds + sent.seconds


class _Ports:
    """Links that count as a rank's own: the rank and link of each and the bytes on it."""

    def __init__(
        self,
        fabric: Fabric,
        flows: PhaseFlows,
        ptr: Ptrs,
        ranks: Ints,
        everybody: bool,
        shared: NDArray[np.bool_],
        ends: tuple[NDArray[np.int64], ...],
    ) -> None:
        """Count the flows in whose row of ranks (CSR) a port's rank stands; all if ``everybody``.

        ``ends`` are the ranks at the ends of the links that count as its ports, -1 for none, [links] each.
        """
        bytes_ = np.concatenate([_bytes_at(flows, end, ptr, ranks, everybody) for end in ends])
        rank, link = np.concatenate(ends), np.tile(np.arange(fabric.n_links), len(ends))
        own = np.flatnonzero((rank >= 0) & (bytes_ > 0))
        self._rank, self._link, self._bytes = rank[own], link[own], bytes_[own]
        self._shared = np.where(shared, bytes_[: fabric.n_links], -1.0) if everybody and shared.any() else None

    def busiest(self, capacity: Floats, n_ranks: int) -> _Busiest:
        """Find each rank's busiest port."""
        rank, link, seconds = self._rank, self._link, self._bytes / capacity[self._link]
        if self._shared is not None:
            of_link = self._shared / capacity
            at = int(np.argmax(of_link))
            rank, link = np.append(rank, np.arange(n_ranks)), np.append(link, np.full(n_ranks, at))
            seconds = np.append(seconds, np.full(n_ranks, of_link[at]))
        found = _Busiest(np.zeros(n_ranks), np.full(n_ranks, -1))
        # The largest come last and stay.
        order = np.argsort(seconds, kind="stable")
        order = order[seconds[order] > 0]
        found.seconds[rank[order]], found.link[rank[order]] = seconds[order], link[order]
        return found


class _WholeLinks:
    """Some links with all their bytes, and the flows on them that carry any."""

    def __init__(self, fabric: Fabric, flows: PhaseFlows, ptr: Ptrs, ranks: Ints, links: NDArray[np.bool_]) -> None:
        flow = csr.owners(flows.route_ptr)
        carries = np.flatnonzero(links[flows.route_links] & (flows.size[flow] * flows.share > 0))
        self._flow, self._link, self._ptr, self._ranks = flow[carries], flows.route_links[carries], ptr, ranks
        self._bytes = flows.link_wire_bytes(fabric.n_links)

    def longest(self, capacity: Floats, other_s: Floats) -> list[_Whole]:
        """Find which link takes longest with its bytes and ``other_s`` [ranks]; none where they carry nothing.

        Of a flow counts the slowest rank in its row (CSR), of a link the flow for which that is least.
        """
        if not len(self._link):
            return []
        other = np.maximum.reduceat(other_s[self._ranks], self._ptr[:-1])[self._flow]
        least = np.full(len(capacity), np.inf)
        np.minimum.at(least, self._link, other)
        seconds = self._bytes / capacity
        at = int(np.argmax(np.where(np.isfinite(least), seconds + least, -np.inf)))
        on_it = np.flatnonzero(self._link == at)
        its_flow = self._flow[on_it[np.argmin(other[on_it])]]
        row = self._ranks[self._ptr[its_flow] : self._ptr[its_flow + 1]]
        return [_Whole(float(seconds[at]), at, int(row[np.argmax(other_s[row])]))]


def _bytes_at(flows: PhaseFlows, rank_of_link: NDArray[np.int64], ptr: Ptrs, ranks: Ints, everybody: bool) -> Floats:
    """Bytes on each link of the flows in whose row of ranks (CSR) the one at the link stands, [links]."""
    if everybody:
        return flows.link_wire_bytes(len(rank_of_link))
    flow = csr.owners(flows.route_ptr)
    here, found = rank_of_link[flows.route_links], np.zeros(len(flow), np.bool_)
    # One place of the rows after the other: few flows have long ones.
    place, left = 0, np.flatnonzero(here >= 0)
    while len(left := left[~found[left] & (ptr[flow[left]] + place < ptr[flow[left] + 1])]):
        found[left] = ranks[ptr[flow[left]] + place] == here[left]
        place += 1
    on_link = np.where(found, flows.size[flow] * flows.share, 0.0)
    return np.bincount(flows.route_links, weights=on_link, minlength=len(rank_of_link)).astype(np.float64)
