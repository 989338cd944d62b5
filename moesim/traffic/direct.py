"""Algorithms that send straight from a token's rank to its experts' ranks: one flow per pair of ranks.

A copy per selection: NCCL's grouped send and receive (of several protocols the fastest is taken, message by message),
DeepEP's low-latency mode over NVLink inside a node or, as before it could, over the NIC everywhere. A copy per distinct
rank: DeepEP V2's direct mode, and the one-sided and two-sided kernels inside one NVLink domain.

Not modelled: queue pairs, credits, NCCL's rounds over peers and its limit of operations per channel.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from moesim import csr
from moesim.cluster import Fabric, FaultyPaths, TwoTierPaths
from moesim.errors import InputError
from moesim.traffic.constants import Protocol
from moesim.traffic.exchange import Exchange
from moesim.traffic.flows import Floats, Ints, KernelWork, PhaseFlows, Ptrs, pair_routes


def direct_flows(exchange: Exchange, sent: NDArray[np.int64], sources: Ints | None = None) -> PhaseFlows:
    """One flow per pair of ranks; a token for its own rank crosses no wire.

    Args:
        exchange: what is to be moved.
        sent: copies that each rank's tokens send to each rank, [ranks, ranks].
        sources: build the flows from these ranks alone (default: all), for callers that know all other ranks send
            alike.
    """
    fabric, constants, algorithm = exchange.fabric, exchange.constants, exchange.algorithm
    sources = np.arange(fabric.n_ranks, dtype=np.int32) if sources is None else sources
    source = np.repeat(sources, fabric.n_ranks)
    target = np.tile(np.arange(fabric.n_ranks, dtype=np.int32), len(sources))
    source, target = source[source != target], target[source != target]
    home, away = (source, target) if exchange.is_dispatch else (target, source)
    copies = sent[home, away]
    size = copies.astype(np.float64) * exchange.bytes_per_copy
    same_node = fabric.rank_node[source] == fabric.rank_node[target]
    if algorithm.nic_only:
        ptr, links, latency = _nic_routes(fabric, source, target, exchange.ecmp_seed)
        same_node = np.zeros(len(size), np.bool_)
    else:
        ptr, links, latency = pair_routes(fabric, source, target, exchange.ecmp_seed)
    each, ends_ptr = np.arange(len(size) + 1, dtype=np.int64), 2 * np.arange(len(size) + 1, dtype=np.int64)
    ends = np.column_stack([source, target]).ravel()
    kernel = exchange.kernel(size, home, None, copies, source, target)
    leave_ptr = leave_ranks = None
    if algorithm.posted:
        leave_ptr, leave_ranks = _receivers(source, target, same_node, kernel)
    flows = PhaseFlows(
        **exchange.terms(),
        source=source,
        target=target,
        size=size,
        route_ptr=ptr,
        route_links=links,
        share=np.ones(len(links)),
        efficiency=exchange.link_efficiency()[links],
        delays=exchange.delays(latency, same_node, home),
        gate_ptr=ends_ptr if exchange.gate == "ends" else each,
        gate_ranks=ends if exchange.gate == "ends" else source,
        member_ptr=ends_ptr,
        member_ranks=ends,
        least_s=exchange.least_s(len(size)),
        kernel=kernel,
        leave_ptr=leave_ptr,
        leave_ranks=leave_ranks,
    )
    if not constants.protocols:
        return flows
    kind = source + fabric.n_ranks * same_node
    port_bytes = np.bincount(kind, weights=size, minlength=2 * fabric.n_ranks)[kind]
    return with_protocols(exchange, flows, latency, same_node, port_bytes, np.ones(len(size)))


def check_one_domain(fabric: Fabric, algorithm: str) -> None:
    """Refuse a group that spans NVLink domains.

    Raises:
        InputError: it does.
    """
    if fabric.n_nodes > 1:
        raise InputError(
            f"{algorithm} stays inside one NVLink domain, {fabric.name} has {fabric.n_nodes} with these ranks",
            where="alltoall.algorithm",
            fix="use a topology with one domain (gb200-nvl72, hgx-*), fewer ranks (parallel.ep), or another algorithm",
        )


def _receivers(
    source: Ints, target: Ints, by_kernel: NDArray[np.bool_], kernel: KernelWork | None
) -> tuple[Ptrs, Ints]:
    """Ranks that wait for each flow: its target, and its source where the kernel there makes or works on the copies."""
    held = by_kernel.copy()
    if kernel is not None:
        flow = csr.owners(kernel.ptr)
        held[flow[kernel.ranks == source[flow]]] = True
    waits = np.column_stack([held, np.ones(len(source), np.bool_)])
    return csr.from_lengths(1 + held), np.column_stack([source, target])[waits]


def _nic_routes(fabric: Fabric, source: Ints, target: Ints, seed: int) -> tuple[Ptrs, Ints, Floats]:
    """Routes that leave by the NIC even inside a node: as if every GPU were a node of its own."""
    paths = fabric.paths
    if isinstance(paths, FaultyPaths) and isinstance(paths.normal, TwoTierPaths):  # nor can a GPU take another's NIC
        alone = np.arange(fabric.n_ranks)
        if (paths.nic_of != alone).any():
            what = "GPUs of one node that share a NIC have no way over it to each other"
            raise InputError(what, where="faults", fix="leave wrong_nic out, or choose another all-to-all")
        normal = replace(paths.normal, node=np.arange(len(paths.normal.node)))
        return pair_routes(replace(fabric, paths=replace(paths, normal=normal, node=alone)), source, target, seed)
    if not isinstance(paths, TwoTierPaths) or (paths.nic_out[fabric.in_cluster(np.arange(fabric.n_ranks))] < 0).any():
        what = f"{fabric.name} has no regular way over a NIC between the GPUs of a node"
        raise InputError(what, where="alltoall.algorithm", fix="use deepep-low-latency")
    apart = replace(fabric, paths=replace(paths, node=np.arange(len(paths.node))))
    return pair_routes(apart, source, target, seed)


def with_protocols(
    exchange: Exchange,
    flows: PhaseFlows,
    latency: Floats,
    same_node: NDArray[np.bool_],
    port_bytes: Floats,
    messages: Floats,
) -> PhaseFlows:
    """Give every flow the protocol that would end first if the messages of its kind shared its port.

    Args:
        exchange: what is to be moved.
        flows: laid on links, with the rates of the set.
        latency, same_node: of each flow's route, [flows].
        port_bytes: what its port moves of its kind, [flows].
        messages: to as many peers, all alike, [flows].
    """
    constants, n_flows = exchange.constants, flows.n_flows
    # Another port than the one measured on keeps the share that is reached of it.
    peak = np.where(same_node, constants.nvlink_peak, constants.nic_peak)
    port, on_wire = peak.copy(), np.diff(flows.route_ptr) > 0
    port[on_wire] = exchange.fabric.capacity[flows.route_links[flows.route_ptr[:-1][on_wire]]]
    scale = port / peak
    best = np.full(n_flows, np.inf)
    setup, floor, rate, cap = (np.zeros(n_flows) for _ in range(4))
    for protocol in constants.protocols:
        its_setup, its_rate = _protocol_terms(exchange, protocol, same_node)
        its_cap = scale * protocol.pair_rate * messages if protocol.pair_rate else np.full(n_flows, np.inf)
        moving = np.maximum(port_bytes / (scale * its_rate), flows.size / its_cap)
        time = np.maximum(protocol.floor_s, its_setup + moving)
        better = time < best
        best = np.where(better, time, best)
        setup, rate = np.where(better, its_setup, setup), np.where(better, its_rate, rate)
        floor, cap = np.where(better, protocol.floor_s, floor), np.where(better, its_cap, cap)
    longest = np.zeros(2)
    np.maximum.at(longest, same_node.astype(np.int64), latency)
    return replace(
        flows,
        efficiency=csr.spread(rate / peak, flows.route_ptr),
        delays={"route latency": latency, "set-up": np.maximum(setup - longest[same_node.astype(np.int64)], 0.0)},
        least_s=floor,
        rate_cap=cap if np.isfinite(cap).any() else None,
    )


def _protocol_terms(exchange: Exchange, protocol: Protocol, same_node: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Set-up and port rate of a protocol for each flow."""
    constants, two = exchange.constants, exchange.fabric.n_ranks == 2
    inside = (two and protocol.two_ranks_setup_s) or protocol.setup_intra_node_s
    nvlink = (two and protocol.two_ranks_nvlink_rate) or protocol.nvlink_rate or constants.nvlink_rate
    turns = protocol.setup_peer_s * max(exchange.fabric.n_ranks - 2, 0)
    setup = np.where(same_node, inside, protocol.setup_inter_node_s) + turns
    return setup, np.where(same_node, nvlink, protocol.nic_rate or constants.nic_rate)
