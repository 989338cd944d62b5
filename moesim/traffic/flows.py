"""Flows of one all-to-all phase: what crosses which links, who must be there before it starts, who waits for its end.

A flow is what shares bandwidth as one: a pair of GPUs for direct algorithms, a (source GPU, destination node) tree for
hierarchical ones. ``share`` is the flow's bytes on a link per byte of the flow; it is 1 on a plain route and the
fraction of the copies that use the link on a tree.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.cluster import Fabric

Ints = NDArray[np.int32]
Ptrs = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PhaseFlows:
    """The flows of one dispatch or combine, one row per flow.

    Attributes:
        phase: ``dispatch`` or ``combine``.
        source, target: rank at each end; for a tree, ``target`` is the rank that forwards (dispatch) or receives.
        size: bytes of the flow, [flows].
        route_ptr, route_links: links of each flow (CSR).
        share: bytes on the link per byte of the flow, aligned with ``route_links``.
        efficiency: share of the link's peak that the algorithm reaches, aligned with ``route_links``.
        delay_s: from the moment that the flow may start to its first byte: set-up plus route latency, [flows].
        gate_ptr, gate_ranks: ranks that must have entered the phase before the flow starts (CSR).
        member_ptr, member_ranks: ranks that leave the phase only after the flow's end (CSR).
        all_ranks_gate: the flows start only when every rank has entered.
        entry_setup_s: each rank's own work on entry (layout).
        group_setup_s: after the last rank has entered (notify, CPU synchronisation).
        sms: SMs that the kernel holds on each rank, of ``total_sms``.
    """

    phase: str
    source: Ints
    target: Ints
    size: Floats
    route_ptr: Ptrs
    route_links: Ints
    share: Floats
    efficiency: Floats
    delay_s: Floats
    gate_ptr: Ptrs
    gate_ranks: Ints
    member_ptr: Ptrs
    member_ranks: Ints
    all_ranks_gate: bool
    entry_setup_s: float
    group_setup_s: float
    sms: int
    total_sms: int

    @property
    def n_flows(self) -> int:
        """Number of flows."""
        return len(self.size)

    @property
    def weight(self) -> Floats:
        """Consumption of link capacity per unit of flow rate: ``share / efficiency``."""
        return self.share / self.efficiency

    def link_wire_bytes(self, n_links: int) -> Floats:
        """Bytes that cross each link in this phase, [links]."""
        per_entry = np.repeat(self.size, np.diff(self.route_ptr)) * self.share
        return np.bincount(self.route_links, weights=per_entry, minlength=n_links).astype(np.float64)


def csr(owner: NDArray[np.int64], n_owners: int) -> Ptrs:
    """Row pointers of entries that are already sorted by owner."""
    ptr = np.zeros(n_owners + 1, np.int64)
    np.cumsum(np.bincount(owner, minlength=n_owners), out=ptr[1:])
    return ptr


def pair_routes(fabric: Fabric, source: Ints, target: Ints, seed: int) -> tuple[Ptrs, Ints, Floats]:
    """Routes of rank pairs and the latency of each, in seconds."""
    ptr, links = fabric.routes(source, target, seed=seed)
    return ptr, links, fabric.latency_of(ptr, links)


def merge_shares(
    flow: NDArray[np.int64], link: Ints, share: Floats, n_flows: int, n_links: int
) -> tuple[Ptrs, Ints, Floats]:
    """Sum the shares of equal (flow, link) entries and sort them into CSR by flow."""
    keys, inverse = np.unique(flow * n_links + link, return_inverse=True)
    total = np.bincount(inverse, weights=share, minlength=len(keys))
    return csr(keys // n_links, n_flows), (keys % n_links).astype(np.int32), total.astype(np.float64)
