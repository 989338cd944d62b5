"""Which ranks and links of a cluster a run's traffic does not tell apart.

Colour refinement (Weisfeiler and Leman, 1968): ranks, links, devices and flows begin with the colour of what they are
by themselves, and take new ones from the colours of what they touch until no colour splits any more. Links of one
colour have the same class, capacity and latency, carry the same bytes in every phase of every layer, in equal flows
between ranks alike, and have the same position in the fabric; ranks of one colour compute and arrive alike, too.

That a fault costs the same at all places of a colour follows where a symmetry of the cluster leads from one to the
other. Colours alone do not prove that there is one: whoever takes one place for all its colour should try a second one.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from moesim import csr
from moesim.cluster import Fabric
from moesim.layer.routed_layer import LayerLoad
from moesim.traffic import Floats, PhaseFlows

Colours = NDArray[np.uint64]

# Numbers that agree to 40 bits, 1e-12 of themselves, are equal: sums in another order are.
_HALF, _DROPPED = np.uint64(1 << 11), np.uint64(12)


class Alike(NamedTuple):
    """Colour of each rank, [ranks], and of each link, [links]."""

    rank: Colours
    link: Colours


def alike_places(fabric: Fabric, loads: Sequence[LayerLoad], start_offset_s: Floats) -> Alike:
    """Colour ranks and links.

    Args:
        fabric: the cluster.
        loads: of every layer of every step and micro-batch.
        start_offset_s: when each rank begins, [ranks].
    """
    phases = [flows for load in loads for flows in load.flows.values()]
    own = [seconds for load in loads for seconds in load.kernels.seconds.values()]
    own += [flows.exit_s for flows in phases if flows.exit_s is not None]
    rank = _mixed(start_offset_s, *own)
    classes = {name: number for number, name in enumerate(fabric.link_classes)}
    kind = np.array([classes[one] for one in fabric.link_class], np.int64)
    link = _mixed(kind, fabric.capacity, fabric.latency, fabric.sender_port)
    device_of = {name: number for number, name in enumerate(fabric.links_at)}
    ends = [np.array([device_of[name] for name in way], np.int64) for way in (fabric.link_source, fabric.link_target)]
    gpu = np.array([device_of.get(name, len(device_of)) for name in fabric.rank_names], np.int64)
    joined = [_Joined(number, flows) for number, flows in enumerate(phases)]
    while True:
        device = np.zeros(len(device_of) + 1, np.uint64)
        device[gpu] = rank
        for way, end in enumerate(ends):
            np.add.at(device, end, _mixed(link, np.array(way)))
        node = np.zeros(fabric.n_nodes, np.uint64)
        np.add.at(node, fabric.rank_node, _mixed(rank))
        touched = Alike(np.zeros(len(rank), np.uint64), np.zeros(len(link), np.uint64))
        for phase in joined:
            phase.add_to(touched, Alike(rank, link))
        now = (
            _mixed(rank, device[gpu], node[fabric.rank_node], touched.rank),
            _mixed(link, *(device[end] for end in ends), touched.link),
        )
        if all(len(np.unique(new)) == len(np.unique(old)) for new, old in zip(now, (rank, link), strict=True)):
            return Alike(rank, link)
        rank, link = now


class _Joined:
    """The flows of a phase and what each touches."""

    def __init__(self, number: int, flows: PhaseFlows) -> None:
        every = np.arange(flows.n_flows)
        own = [flows.size, flows.delay_s, *(one for one in (flows.rate_cap, flows.least_s) if one is not None)]
        self._own = _mixed(np.array(number), *own)
        # Flow, what it touches (0 ranks, 1 links), which one, and how.
        self._touches: list[tuple[NDArray[np.int64], int, NDArray[Any], Colours]] = [
            (every, 0, flows.source, _mixed(np.array(0))),
            (every, 0, flows.target, _mixed(np.array(1))),
            (csr.owners(flows.route_ptr), 1, flows.route_links, _mixed(flows.share, flows.efficiency)),
        ]
        rows = [(flows.gate_ptr, flows.gate_ranks), (flows.member_ptr, flows.member_ranks), flows.waiting]
        self._touches += [(csr.owners(ptr), 0, ranks, _mixed(np.array(2 + i))) for i, (ptr, ranks) in enumerate(rows)]
        if flows.kernel is not None:
            kernel = flows.kernel
            self._touches.append((csr.owners(kernel.ptr), 0, kernel.ranks, _mixed(kernel.s_per_byte, np.array(5))))

    def add_to(self, touched: Alike, present: Alike) -> None:
        """Add up the colours of the flows at each rank and link."""
        flow = self._own.copy()
        for owner, kind, which, how in self._touches:
            np.add.at(flow, owner, _mixed(present[kind][which], how))
        flow = _mixed(flow)
        for owner, kind, which, how in self._touches:
            np.add.at(touched[kind], which, _mixed(flow[owner], how))


def _mixed(*values: NDArray[Any]) -> Colours:
    """Mix numbers into one of 64 bits, element by element: splitmix64 (Steele, Lea and Flood, 2014), chained."""
    found = np.zeros((), np.uint64)
    with np.errstate(over="ignore"):
        for bits in map(_bits, values):
            found = (found ^ bits) + np.uint64(0x9E3779B97F4A7C15)
            found = (found ^ (found >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            found = (found ^ (found >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            found = found ^ (found >> np.uint64(31))
    return np.asarray(found)


def _bits(values: NDArray[Any]) -> Colours:
    if values.dtype.kind == "f":
        return (np.ascontiguousarray(values, np.float64).view(np.uint64) + _HALF) >> _DROPPED
    return values.astype(np.uint64)
