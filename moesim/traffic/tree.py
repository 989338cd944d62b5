"""Hierarchical algorithms: one copy per distinct node over the NIC, from there one per distinct rank over NVLink.

DeepEP's normal mode, the hybrid mode of its V2, and Hybrid-EP. A flow is a (token's rank, node) pair: over the NIC to
the GPU of the same index there, which forwards it over NVLink to each rank that needs it; a tree whose share on each
receiver's port is that receiver's part of the copies. Combine is the same tree reversed, the forwarder reducing the
partial sums of its node to one copy.

Chunks and credits of the two-hop pipeline enter as rates, as SM work per copy, and as the fill of the first chunks.
"""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from moesim import csr
from moesim.cluster import Fabric
from moesim.traffic.exchange import Exchange
from moesim.traffic.flows import Ints, Pairs, PhaseFlows, pair_routes
from moesim.traffic.row_merge import merge_rows


def tree_flows(exchange: Exchange) -> PhaseFlows:
    """One flow per (token's rank, node of its experts): NIC to the same-index GPU, NVLink from there on."""
    fabric, copies = exchange.fabric, exchange.copies
    n_ranks, n_nodes = fabric.n_ranks, fabric.n_nodes
    home = np.repeat(np.arange(n_ranks, dtype=np.int32), n_nodes)
    node = np.tile(np.arange(n_nodes, dtype=np.int32), n_ranks)
    n_flows = len(home)
    forwarder = same_index_rank(fabric, home, node)
    node_copies = copies.node_copies[home, node]
    size = node_copies.astype(np.float64) * exchange.bytes_per_copy

    # The long leg: home <-> forwarder. Empty on the home node.
    there, back = (home, forwarder) if exchange.is_dispatch else (forwarder, home)
    leg_ptr, leg_links, leg_latency = pair_routes(fabric, there, back, exchange.ecmp_seed)
    leg_flow = csr.owners(leg_ptr)

    # The fan: forwarder <-> every rank of the node that holds one of the token's experts.
    fan_flow, fan_rank = members_of_nodes(fabric, node)
    fan_copies = copies.rank_copies[home[fan_flow], fan_rank]
    rank_copies = np.bincount(fan_flow, weights=fan_copies, minlength=n_flows).astype(np.int64)
    used = (fan_copies > 0) & (fan_rank != forwarder[fan_flow])
    fan_flow, fan_rank, fan_copies = fan_flow[used], fan_rank[used], fan_copies[used]
    out, into = (forwarder[fan_flow], fan_rank) if exchange.is_dispatch else (fan_rank, forwarder[fan_flow])
    fan_ptr, fan_links, fan_latency = pair_routes(fabric, out, into, exchange.ecmp_seed)
    fan_entries = csr.owners(fan_ptr)
    fan_share = (fan_copies / node_copies[fan_flow])[fan_entries]

    route_ptr, route_links, share = merge_rows(
        np.concatenate([leg_flow, fan_flow[fan_entries]]),
        np.concatenate([leg_links, fan_links]),
        np.concatenate([np.ones(len(leg_links)), fan_share]),
        n_flows,
        fabric.n_links,
    )
    deepest_fan = np.zeros(n_flows)
    np.maximum.at(deepest_fan, fan_flow, fan_latency)
    same_node = fabric.rank_node[home] == node

    # Everybody on the node waits for the flow's end, and so does the token's own rank.
    member_flow, member_rank = members_of_nodes(fabric, node)
    away = np.flatnonzero(~same_node)
    member_ptr, member_ranks = csr.grouped(
        np.concatenate([member_flow, away]), np.concatenate([member_rank, home[away]]), n_flows
    )
    # Dispatch needs its source and its forwarder; combine needs its forwarder and whoever contributes.
    first = home if exchange.is_dispatch else forwarder
    other_flow, other_rank = (away, forwarder[away]) if exchange.is_dispatch else (fan_flow, fan_rank)
    gate_ptr, gate_ranks = csr.grouped(
        np.concatenate([np.arange(n_flows), other_flow]), np.concatenate([first, other_rank]), n_flows
    )
    return PhaseFlows(
        **exchange.terms(),
        source=there,
        target=back,
        size=size,
        route_ptr=route_ptr,
        route_links=route_links,
        share=share,
        efficiency=exchange.link_efficiency()[route_links],
        delays=exchange.delays(leg_latency + deepest_fan, same_node, home),
        gate_ptr=gate_ptr,
        gate_ranks=gate_ranks,
        member_ptr=member_ptr,
        member_ranks=member_ranks,
        least_s=exchange.least_s(n_flows),
        pairs=partial(_pairs, exchange),
        kernel=exchange.kernel(size, home, node_copies, rank_copies, forwarder),
    )


def same_index_rank(fabric: Fabric, rank: Ints, node: Ints) -> Ints:
    """The GPU of ``node`` with the same index in its node as ``rank``; nodes of unequal size wrap around."""
    ptr = csr.pointers(fabric.rank_node, fabric.n_nodes)
    index = rank - ptr[fabric.rank_node[rank]]
    return (ptr[node] + index % np.diff(ptr)[node]).astype(np.int32)


def members_of_nodes(fabric: Fabric, node: Ints) -> tuple[NDArray[np.int64], Ints]:
    """For each row's node, every rank of that node: (row, rank) pairs sorted by row."""
    # Ranks are node-major, so a rank is its own place among those of all nodes.
    ptr, rank = csr.rows_of(csr.pointers(fabric.rank_node, fabric.n_nodes), node)
    return csr.owners(ptr), rank.astype(np.int32)


def _pairs(exchange: Exchange) -> Pairs:
    """Copies from rank to rank, each in its tree."""
    fabric, copies = exchange.fabric, exchange.copies.rank_copies
    home, away = np.nonzero(copies)
    other = home != away
    home, away = home[other], away[other]
    source, target = (home, away) if exchange.is_dispatch else (away, home)
    return Pairs(source, target, copies[home, away], home * fabric.n_nodes + fabric.rank_node[away])
