"""NCCL with PXN: a message for another node first crosses NVLink to the local GPU on the destination's rail.

That GPU's NIC then sends to its own rail, so no spine is crossed, and what several local GPUs have for one destination
leaves as one transfer. Only the sending side does so (NCCL_P2P_PXN_LEVEL 2, the default). The price: NVLink carries the
bytes for other nodes too, and a destination that is popular loads the NIC of its index on every sending node.

A flow is a message inside a node, or all that a node sends to one rank elsewhere: a tree whose share on each sender's
NVLink is that sender's part.
"""

from functools import partial

import numpy as np

from moesim import csr
from moesim.cluster import Fabric
from moesim.traffic.exchange import Counts, Exchange
from moesim.traffic.flows import Ints, Pairs, PhaseFlows, pair_routes
from moesim.traffic.row_merge import merge_rows
from moesim.traffic.tree import members_of_nodes, same_index_rank


def pxn_flows(exchange: Exchange) -> PhaseFlows:
    """One flow per pair inside a node, and one per (node, rank elsewhere)."""
    fabric = exchange.fabric
    n, n_nodes = fabric.n_ranks, fabric.n_nodes
    sent = exchange.copies.selections if exchange.is_dispatch else exchange.copies.selections.T
    sizes = sent.astype(np.float64) * exchange.bytes_per_copy
    node_of = fabric.rank_node

    near_source, near_target = (
        ends.astype(np.int32) for ends in np.nonzero((node_of[:, None] == node_of) & ~np.eye(n, dtype=bool))
    )
    from_node, to_rank = (ends.astype(np.int32) for ends in np.nonzero(np.arange(n_nodes)[:, None] != node_of))
    proxy = same_index_rank(fabric, to_rank, from_node)
    n_near, n_far = len(near_source), len(to_rank)

    near_ptr, near_links, near_latency = pair_routes(fabric, near_source, near_target, exchange.ecmp_seed)
    leg_ptr, leg_links, leg_latency = pair_routes(fabric, proxy, to_rank, exchange.ecmp_seed)
    # The fan: every GPU of the node that has something for the rank <-> the proxy.
    fan_flow, fan_rank = members_of_nodes(fabric, from_node)
    fan_size = sizes[fan_rank, to_rank[fan_flow]]
    far_size = np.bincount(fan_flow, weights=fan_size, minlength=n_far)
    via = (fan_size > 0) & (fan_rank != proxy[fan_flow])
    out = fan_flow[via]
    fan_ptr, fan_links, fan_latency = pair_routes(fabric, fan_rank[via], proxy[out], exchange.ecmp_seed)
    fan_entries = csr.owners(fan_ptr)
    longest_fan = np.zeros(n_far)
    np.maximum.at(longest_fan, out, fan_latency)

    route_ptr, route_links, share = merge_rows(
        np.concatenate(
            [
                csr.owners(near_ptr),
                n_near + csr.owners(leg_ptr),
                n_near + out[fan_entries],
            ]
        ),
        np.concatenate([near_links, leg_links, fan_links]),
        np.concatenate([np.ones(len(near_links) + len(leg_links)), (fan_size[via] / far_size[out])[fan_entries]]),
        n_near + n_far,
        fabric.n_links,
    )
    same_node = np.arange(n_near + n_far) < n_near
    source = np.concatenate([near_source, proxy])
    target = np.concatenate([near_target, to_rank])
    size = np.concatenate([sizes[near_source, near_target], far_size])
    # Both ends: the whole sending node, whose messages leave as one, and the receiver.
    far_ranks = np.insert(fan_rank, csr.pointers(fan_flow, n_far)[1:], to_rank)
    lengths = np.concatenate([np.full(n_near, 2), 1 + np.bincount(fan_flow, minlength=n_far)])
    ends_ptr = csr.from_lengths(lengths)
    ends = np.concatenate([np.column_stack([near_source, near_target]).ravel(), far_ranks]).astype(np.int32)
    return PhaseFlows(
        **exchange.terms(),
        source=source,
        target=target,
        size=size,
        route_ptr=route_ptr,
        route_links=route_links,
        share=share,
        efficiency=exchange.link_efficiency()[route_links],
        delays=exchange.delays(np.concatenate([near_latency, leg_latency + longest_fan]), same_node, source),
        gate_ptr=ends_ptr,
        gate_ranks=ends,
        member_ptr=ends_ptr,
        member_ranks=ends,
        least_s=exchange.least_s(len(size)),
        pairs=partial(_pairs, sent, fabric, (near_source, near_target), (from_node, to_rank)),
    )


def _pairs(sent: Counts, fabric: Fabric, near: tuple[Ints, Ints], far: tuple[Ints, Ints]) -> Pairs:
    """Copies from rank to rank, each in its message or in what its node sends together."""
    n = fabric.n_ranks
    near_flow, far_flow = np.zeros((n, n), np.int64), np.zeros((fabric.n_nodes, n), np.int64)
    near_flow[near] = np.arange(len(near[0]))
    far_flow[far] = len(near[0]) + np.arange(len(far[0]))
    source, target = np.nonzero(sent * ~np.eye(n, dtype=bool))
    same_node = fabric.rank_node[source] == fabric.rank_node[target]
    flow = np.where(same_node, near_flow[source, target], far_flow[fabric.rank_node[source], target])
    return Pairs(source, target, sent[source, target], flow)
