"""Flows of one all-to-all phase: what crosses which links, who must be there before it starts, who waits for its end.

A flow is what shares bandwidth as one: a pair of GPUs for direct algorithms, a (source GPU, destination node) tree for
hierarchical ones. ``share`` is the flow's bytes on a link per byte of the flow; it is 1 on a plain route and the
fraction of the copies that use the link on a tree.

Beside wires, a flow may need the communication kernel of a rank: so many seconds of it per byte. That is a resource of
the rank like any link, of capacity 1, and what makes few SMs slow.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from moesim import csr
from moesim.cluster import Fabric

Ints = NDArray[np.int32]
Ptrs = NDArray[np.int64]
Floats = NDArray[np.float64]

QUEUES = "queues at spines"
"""What a rank's last bytes wait for where packets queue between switches, by its name in ``PhaseFlows.exits``."""


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
        delays: from the moment that the flow may start to its first byte, by what it waits for: ``route latency``,
            ``set-up``, ``fill``, [flows] each.
        gate_ptr, gate_ranks: ranks that must have entered the phase before the flow starts (CSR).
        member_ptr, member_ranks: ranks that the flow is in progress for: at its ends, or where it is forwarded (CSR).
            They stay in the phase until its first byte, and for its floor.
        leave_ptr, leave_ranks: those of them that wait for its end before they leave (CSR), one at least; None: all.
        all_ranks_gate: the flows start only when every rank has entered.
        entry_setup_s: each rank's own work on entry (layout).
        group_setup: seconds after the last rank has entered, by what they go to: ``notify``, ``CPU synchronisation``.
        sms: SMs that the kernel holds on each rank, of ``total_sms``.
        kernel: what each flow needs of the ranks' communication kernels; None for nothing.
        rate_cap: most that a flow reaches, bytes/s, [flows]; None for no limit.
        least_s: a flow's members stay at least so long after it may start, [flows]; None for 0.
        exits: each rank's own work after its last flow, and ``QUEUES``, by name, [ranks] each.
        all_ranks_leave: a barrier ends the phase: no rank leaves before all flows are done.
        pairs: makes the list of who sends copies to whom and in which flow; None where each flow is one such pair.
    """

    phase: str
    source: Ints
    target: Ints
    size: Floats
    route_ptr: Ptrs
    route_links: Ints
    share: Floats
    efficiency: Floats
    delays: Mapping[str, Floats]
    gate_ptr: Ptrs
    gate_ranks: Ints
    member_ptr: Ptrs
    member_ranks: Ints
    all_ranks_gate: bool
    entry_setup_s: float
    group_setup: Mapping[str, float]
    sms: int
    total_sms: int
    kernel: "KernelWork | None" = None
    rate_cap: Floats | None = None
    least_s: Floats | None = None
    exits: Mapping[str, Floats] = field(default_factory=dict)
    all_ranks_leave: bool = False
    pairs: "Callable[[], Pairs] | None" = None
    leave_ptr: Ptrs | None = None
    leave_ranks: Ints | None = None

    @property
    def waiting(self) -> tuple[Ptrs, Ints]:
        """Ranks that leave the phase only after each flow's end (CSR)."""
        if self.leave_ptr is None or self.leave_ranks is None:
            return self.member_ptr, self.member_ranks
        return self.leave_ptr, self.leave_ranks

    @cached_property
    def delay_s(self) -> Floats:
        """From the moment that each flow may start to its first byte, [flows]."""
        return sum(self.delays.values(), np.zeros(self.n_flows))

    @cached_property
    def group_setup_s(self) -> float:
        """From the moment that the last rank has entered to the start of the flows."""
        return sum(self.group_setup.values(), 0.0)

    @cached_property
    def exit_s(self) -> Floats | None:
        """Each rank's own work after its last flow, [ranks]; None for none."""
        return sum(self.exits.values(), np.zeros(())) if self.exits else None

    @property
    def n_flows(self) -> int:
        """Number of flows."""
        return len(self.size)

    @property
    def weight(self) -> Floats:
        """Consumption of link capacity per unit of flow rate: ``share / efficiency``."""
        return self.share / self.efficiency

    def resources(self, first_kernel: int) -> tuple[Ptrs, Ints, Floats]:
        """Everything that each flow loads, wires and kernels, as the network takes it.

        Args:
            first_kernel: link id of rank 0's kernel; those of the others follow.

        Returns:
            Row pointers, link ids and weights (CSR).
        """
        kernel = self.kernel
        if kernel is None:
            return self.route_ptr, self.route_links, self.weight
        ptr = self.route_ptr + kernel.ptr
        links = np.empty(ptr[-1], np.int32)
        weight = np.empty(ptr[-1])
        # A row is its wires, then its kernels.
        at_wire = np.arange(len(self.route_links)) + csr.spread(kernel.ptr[:-1], self.route_ptr)
        at_kernel = np.arange(len(kernel.ranks)) + csr.spread(self.route_ptr[1:], kernel.ptr)
        links[at_wire], weight[at_wire] = self.route_links, self.weight
        links[at_kernel], weight[at_kernel] = kernel.ranks + first_kernel, kernel.s_per_byte
        return ptr, links, weight

    def kernel_seconds(self, n_ranks: int) -> Floats:
        """Seconds of its kernel that each rank's flows need, [ranks]."""
        if self.kernel is None:
            return np.zeros(n_ranks)
        seconds = csr.spread(self.size, self.kernel.ptr) * self.kernel.s_per_byte
        return np.bincount(self.kernel.ranks, weights=seconds, minlength=n_ranks).astype(np.float64)

    def link_efficiency(self, n_links: int) -> Floats:
        """Share of its peak that the algorithm reaches on each link, 1 where the phase has no flow, [links]."""
        efficiency = np.ones(n_links)
        efficiency[self.route_links] = self.efficiency
        return efficiency

    def link_wire_bytes(self, n_links: int) -> Floats:
        """Bytes that cross each link in this phase, [links]."""
        per_entry = csr.spread(self.size, self.route_ptr) * self.share
        return np.bincount(self.route_links, weights=per_entry, minlength=n_links).astype(np.float64)


@dataclass(frozen=True)
class KernelWork:
    """Ranks whose communication kernel each flow needs (CSR over flows), and for how many seconds per byte of it."""

    ptr: Ptrs
    ranks: Ints
    s_per_byte: Floats


@dataclass(frozen=True)
class Pairs:
    """Copies between two ranks, source and target as in the phase, and the flow that carries them; one row per pair."""

    source: NDArray[np.int64]
    target: NDArray[np.int64]
    copies: NDArray[np.int64]
    flow: NDArray[np.int64]


def with_packets(flows: PhaseFlows, fabric: Fabric) -> PhaseFlows:
    """Return the flows with the transient queues of packets between switches, which delay a rank's last bytes.

    They hold no more than what the source sends that way: its port's time for it is the most that they take.
    """
    if fabric.packets is None or not fabric.packets.queues_s:
        return flows
    sent = np.where(over_switches(flows, fabric), flows.size, 0.0)
    port = np.full(flows.n_flows, np.inf)
    np.minimum.at(port, csr.owners(flows.route_ptr), fabric.capacity[flows.route_links] / flows.weight)
    together_s = np.bincount(flows.source, weights=sent / port, minlength=fabric.n_ranks)[flows.source]
    queues_s = np.where(sent > 0, np.minimum(together_s, fabric.packets.queues_s), 0.0)
    waiting_ptr, waiting = flows.waiting
    last_s = np.zeros(fabric.n_ranks)
    np.maximum.at(last_s, waiting, csr.spread(queues_s, waiting_ptr))
    if flows.all_ranks_leave:
        last_s[:] = last_s.max()
    return replace(flows, exits={QUEUES: last_s, **flows.exits}) if last_s.any() else flows


def over_switches(flows: PhaseFlows, fabric: Fabric) -> NDArray[np.bool_]:
    """Whether each flow goes from switch to switch, [flows]."""
    over = np.zeros(flows.n_flows, np.bool_)
    over[csr.owners(flows.route_ptr)[fabric.between_switches[flows.route_links]]] = True
    return over


def pair_routes(fabric: Fabric, source: Ints, target: Ints, seed: int) -> tuple[Ptrs, Ints, Floats]:
    """Routes of rank pairs and the latency of each, in seconds."""
    ptr, links = fabric.routes(source, target, seed=seed)
    return ptr, links, fabric.latency_of(ptr, links)
