"""All-gather of every token to every rank, and reduce-scatter of the answers: an alternative to all-to-all at small EP.

NCCL's rings: the data of a GPU visits all others in turn; as many rings as a node has GPUs share the work, each coming
into a node by a GPU of its own. So of a flow (G - 1) / G go from each GPU to the next of its node, and 1 / G from each
to the GPU of its index in the next node; only what would come back to where it started is left out. Where tokens are
routed does not matter: they go everywhere.

Bytes on every GPU's ports with T tokens per rank, out and in: T b (R - 1) (G - 1) / G on NVLink, T b (R - 1) / G on the
NIC; on one node T b (R - 1) on NVLink.
Not modelled: NVLink SHARP, trees, and the ring's fill, which the set-up time must hold.
"""

from functools import partial

import numpy as np

from moesim import csr
from moesim.traffic.exchange import Exchange
from moesim.traffic.flows import Pairs, PhaseFlows, pair_routes
from moesim.traffic.row_merge import merge_rows


def ring_flows(exchange: Exchange) -> PhaseFlows:
    """One flow per rank: its tokens to all (dispatch), or all answers to it (combine)."""
    fabric = exchange.fabric
    n, n_nodes, node_of = fabric.n_ranks, fabric.n_nodes, fabric.rank_node
    rank = np.arange(n)
    first = np.searchsorted(node_of, np.arange(n_nodes))
    in_node = np.bincount(node_of, minlength=n_nodes)
    index = rank - first[node_of]
    size = exchange.tokens.astype(np.float64) * exchange.bytes_per_copy

    # Hops: every GPU to the next of its node, and to the GPU of its index in the next node.
    inner = rank[in_node[node_of] > 1]
    outer = rank if n_nodes > 1 else rank[:0]
    next_node = (node_of + 1) % n_nodes
    inner_target = first[node_of] + (index + 1) % in_node[node_of]
    outer_target = first[next_node] + index % in_node[next_node]
    near = np.concatenate([inner, outer]).astype(np.int32)
    far = np.concatenate([inner_target[inner], outer_target[outer]]).astype(np.int32)
    # Answers come back the other way round.
    hops = (near, far) if exchange.is_dispatch else (far, near)
    hop_ptr, hop_links, hop_latency = pair_routes(fabric, *hops, exchange.ecmp_seed)
    part = 1 / in_node[node_of] if n_nodes > 1 else np.zeros(n)
    hop_share = np.concatenate([1 - part[inner], part[outer]])

    # Nothing comes back home.
    flow, hop = np.nonzero(far != rank[:, None])
    ptr, entry = csr.rows_of(hop_ptr, hop)
    route_ptr, route_links, share = merge_rows(
        csr.spread(flow, ptr), hop_links[entry], csr.spread(hop_share[hop], ptr), n, fabric.n_links
    )
    latency = np.full(n, hop_latency.max() if len(hop_latency) else 0.0)
    all_ranks = np.tile(rank.astype(np.int32), n)
    home = rank.astype(np.int32)
    return PhaseFlows(
        **exchange.terms(),
        source=home,
        target=home,
        size=size,
        route_ptr=route_ptr,
        route_links=route_links,
        share=share,
        efficiency=exchange.link_efficiency()[route_links],
        delays=exchange.delays(latency, np.full(n, n_nodes == 1), home),
        gate_ptr=np.arange(n + 1, dtype=np.int64),
        gate_ranks=home,
        member_ptr=n * np.arange(n + 1, dtype=np.int64),
        member_ranks=all_ranks,
        least_s=exchange.least_s(n),
        pairs=partial(_pairs, exchange),
    )


def _pairs(exchange: Exchange) -> Pairs:
    """Every rank's tokens to every other."""
    n = exchange.fabric.n_ranks
    home, away = np.nonzero(~np.eye(n, dtype=bool))
    source, target = (home, away) if exchange.is_dispatch else (away, home)
    return Pairs(source, target, exchange.tokens[home], home)
