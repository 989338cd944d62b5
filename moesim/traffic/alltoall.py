"""The all-to-all algorithms: from copies per pair to flows on links.

``nccl-direct`` and ``deepep-low-latency`` send every selection straight to the rank that holds the expert, one flow per
(source, target) pair. ``deepep-normal`` sends one copy per distinct *node* over the NIC to the GPU of the same index
there, which forwards it over NVLink to each distinct *rank* that needs it: one flow per (source GPU, node), a tree
whose share on each receiver's port is that receiver's part of the copies. Its combine is the same tree reversed, the
forwarder reducing the partial sums of its node to one copy.

Not modelled here: chunking and credits of the two-hop pipeline, PXN, queue pairs.
"""

import numpy as np
from numpy.typing import NDArray

from moesim.cluster import Fabric
from moesim.traffic.calibration import Calibration
from moesim.traffic.copies import Copies
from moesim.traffic.flows import Floats, Ints, PhaseFlows, csr, merge_shares, pair_routes


def phase_flows(
    fabric: Fabric,
    copies: Copies,
    constants: Calibration,
    phase: str,
    bytes_per_copy: int,
    cached_handle: bool = False,
    ecmp_seed: int = 0,
) -> PhaseFlows:
    """Build the flows of one phase.

    Args:
        fabric: links and routes.
        copies: what each rank sends, per selection, per rank and per node, [ranks, ranks or nodes]; own ones included.
        constants: rates, set-up times and SMs of the algorithm on this GPU.
        phase: ``dispatch`` (tokens to experts) or ``combine`` (the same copies back).
        bytes_per_copy: bytes of one copy on the wire.
        cached_handle: normal mode knows the layout already: no layout kernel, no exchange of counts, no CPU wait.
        ecmp_seed: seed of the fabric's path hash.

    Returns:
        Flows of all pairs, those without bytes included, since a rank waits for them too.
    """
    if constants.algorithm == "deepep-normal":
        return _tree_flows(fabric, copies, constants, phase, bytes_per_copy, cached_handle, ecmp_seed)
    return _direct_flows(fabric, copies.selections, constants, phase, bytes_per_copy, ecmp_seed)


def _direct_flows(
    fabric: Fabric,
    selections: NDArray[np.int64],
    constants: Calibration,
    phase: str,
    bytes_per_copy: int,
    ecmp_seed: int,
) -> PhaseFlows:
    """One flow per pair of ranks; a token for its own rank crosses no wire."""
    n = fabric.n_ranks
    source, target = (index.astype(np.int32) for index in np.nonzero(~np.eye(n, dtype=bool)))
    sent = selections if phase == "dispatch" else selections.T
    size = sent[source, target].astype(np.float64) * bytes_per_copy
    ptr, links, latency = pair_routes(fabric, source, target, ecmp_seed)
    same_node = fabric.rank_node[source] == fabric.rank_node[target]
    delay = latency + _added_setup(constants, latency, same_node)
    ends = np.column_stack([source, target]).ravel()
    end_ptr = 2 * np.arange(len(size) + 1, dtype=np.int64)
    source_in_is_enough = constants.algorithm == "deepep-low-latency"
    return PhaseFlows(
        phase=phase,
        source=source,
        target=target,
        size=size,
        route_ptr=ptr,
        route_links=links,
        share=np.ones(len(links)),
        efficiency=_link_efficiency(fabric, constants)[links],
        delay_s=delay,
        gate_ptr=np.arange(len(size) + 1, dtype=np.int64) if source_in_is_enough else end_ptr,
        gate_ranks=source if source_in_is_enough else ends,
        member_ptr=end_ptr,
        member_ranks=ends,
        all_ranks_gate=False,
        entry_setup_s=0.0,
        group_setup_s=0.0,
        sms=constants.sms,
        total_sms=constants.total_sms,
    )


def _tree_flows(
    fabric: Fabric,
    copies: Copies,
    constants: Calibration,
    phase: str,
    bytes_per_copy: int,
    cached_handle: bool,
    ecmp_seed: int,
) -> PhaseFlows:
    """One flow per (token's rank, node of its experts): NIC to the same-index GPU, NVLink from there on."""
    n_ranks, n_nodes = fabric.n_ranks, fabric.n_nodes
    home = np.repeat(np.arange(n_ranks, dtype=np.int32), n_nodes)
    node = np.tile(np.arange(n_nodes, dtype=np.int32), n_ranks)
    n_flows = len(home)
    forwarder = _same_index_rank(fabric, home, node)
    node_copies = copies.node_copies[home, node]

    # The long leg: home <-> forwarder. Empty on the home node.
    there, back = (home, forwarder) if phase == "dispatch" else (forwarder, home)
    leg_ptr, leg_links, leg_latency = pair_routes(fabric, there, back, ecmp_seed)
    leg_flow = np.repeat(np.arange(n_flows), np.diff(leg_ptr))

    # The fan: forwarder <-> every other rank of the node that holds one of the token's experts.
    fan_flow, fan_rank = _members_of_nodes(fabric, node)
    other = fan_rank != forwarder[fan_flow]
    fan_flow, fan_rank = fan_flow[other], fan_rank[other]
    fan_copies = copies.rank_copies[home[fan_flow], fan_rank]
    used = fan_copies > 0
    fan_flow, fan_rank, fan_copies = fan_flow[used], fan_rank[used], fan_copies[used]
    out, into = (forwarder[fan_flow], fan_rank) if phase == "dispatch" else (fan_rank, forwarder[fan_flow])
    fan_ptr, fan_links, fan_latency = pair_routes(fabric, out, into, ecmp_seed)
    fan_entries = np.repeat(np.arange(len(fan_flow)), np.diff(fan_ptr))
    fan_share = (fan_copies / node_copies[fan_flow])[fan_entries]

    route_ptr, route_links, share = merge_shares(
        np.concatenate([leg_flow, fan_flow[fan_entries]]),
        np.concatenate([leg_links, fan_links]),
        np.concatenate([np.ones(len(leg_links)), fan_share]),
        n_flows,
        fabric.n_links,
    )
    deepest_fan = np.zeros(n_flows)
    np.maximum.at(deepest_fan, fan_flow, fan_latency)
    latency = leg_latency + deepest_fan
    same_node = fabric.rank_node[home] == node

    # Everybody on the node waits for the flow's end, and so does the token's own rank.
    member_flow, member_rank = _members_of_nodes(fabric, node)
    away = np.flatnonzero(~same_node)
    member_ptr, member_ranks = _grouped(
        np.concatenate([member_flow, away]), np.concatenate([member_rank, home[away]]), n_flows
    )
    # Dispatch needs its source and its forwarder; combine needs its forwarder and whoever contributes.
    first = home if phase == "dispatch" else forwarder
    other_flow, other_rank = (away, forwarder[away]) if phase == "dispatch" else (fan_flow, fan_rank)
    gate_ptr, gate_ranks = _grouped(
        np.concatenate([np.arange(n_flows), other_flow]), np.concatenate([first, other_rank]), n_flows
    )

    # Combine always has the handle of its dispatch.
    fresh = phase == "dispatch" and not cached_handle
    return PhaseFlows(
        phase=phase,
        source=there,
        target=back,
        size=node_copies.astype(np.float64) * bytes_per_copy,
        route_ptr=route_ptr,
        route_links=route_links,
        share=share,
        efficiency=_link_efficiency(fabric, constants)[route_links],
        delay_s=latency + _added_setup(constants, latency, same_node),
        gate_ptr=gate_ptr,
        gate_ranks=gate_ranks,
        member_ptr=member_ptr,
        member_ranks=member_ranks,
        all_ranks_gate=fresh,
        entry_setup_s=constants.layout_s if fresh else 0.0,
        group_setup_s=constants.notify_s(n_nodes) + constants.cpu_sync_s if fresh else 0.0,
        sms=constants.sms,
        total_sms=constants.total_sms,
    )


def _added_setup(constants: Calibration, latency: Floats, same_node: NDArray[np.bool_]) -> Floats:
    """Set-up beyond what the longest route of the kind already takes, so that nothing is counted twice."""
    added = np.zeros(len(latency))
    for inside, setup in ((True, constants.setup_intra_node_s), (False, constants.setup_inter_node_s)):
        of_kind = same_node == inside
        if of_kind.any():
            added[of_kind] = max(0.0, setup - float(latency[of_kind].max()))
    return added


def _link_efficiency(fabric: Fabric, constants: Calibration) -> Floats:
    by_class = {name: constants.efficiency(name) for name in set(fabric.link_class)}
    return np.array([by_class[name] for name in fabric.link_class])


def _same_index_rank(fabric: Fabric, rank: Ints, node: Ints) -> Ints:
    """The GPU of ``node`` with the same index in its node as ``rank``; nodes of unequal size wrap around."""
    first = np.searchsorted(fabric.rank_node, np.arange(fabric.n_nodes)).astype(np.int32)
    size = np.bincount(fabric.rank_node, minlength=fabric.n_nodes)
    index = rank - first[fabric.rank_node[rank]]
    return (first[node] + index % size[node]).astype(np.int32)


def _members_of_nodes(fabric: Fabric, node: Ints) -> tuple[NDArray[np.int64], Ints]:
    """For each row's node, every rank of that node: (row, rank) pairs sorted by row."""
    size = np.bincount(fabric.rank_node, minlength=fabric.n_nodes)
    first = np.searchsorted(fabric.rank_node, np.arange(fabric.n_nodes))
    row = np.repeat(np.arange(len(node)), size[node])
    ptr = csr(row, len(node))
    rank = first[node[row]] + np.arange(len(row)) - ptr[row]
    return row, rank.astype(np.int32)


def _grouped(owner: NDArray[np.int64], rank: Ints, n_owners: int) -> tuple[NDArray[np.int64], Ints]:
    order = np.argsort(owner, kind="stable")
    return csr(owner, n_owners), rank[order]
