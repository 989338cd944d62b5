"""What a normal-mode all-to-all puts on every link, one token and one hop at a time."""

import numpy as np


def same_index_rank(fabric, rank, node):
    """The GPU of ``node`` that has the index of ``rank`` in its own node; a node too short for it starts over."""
    peers = [other for other in range(fabric.n_ranks) if fabric.rank_node[other] == fabric.rank_node[rank]]
    there = [other for other in range(fabric.n_ranks) if fabric.rank_node[other] == node]
    return there[peers.index(rank) % len(there)]


def bytes_by_token(fabric, slot_ids, token_rank, slot_rank, bytes_per_copy, phase, seed=0):
    """Walk each token along its tree and count the bytes on every link, [links]."""
    on_link = np.zeros(fabric.n_links)

    def hop(near, far):
        ends = ([near], [far]) if phase == "dispatch" else ([far], [near])
        _, links = fabric.routes(*ends, seed=seed)
        on_link[links] += bytes_per_copy

    for slots, home in zip(slot_ids, token_rank, strict=True):
        ranks = {int(slot_rank[slot]) for slot in slots if slot >= 0}
        for node in {int(fabric.rank_node[rank]) for rank in ranks}:
            forwarder = same_index_rank(fabric, home, node)
            hop(home, forwarder)
            for rank in ranks:
                if fabric.rank_node[rank] == node:
                    hop(forwarder, rank)
    return on_link


def gates_and_members(fabric, rank_copies, phase, cached):
    """Of each (home, node) tree: who must be in before it starts, and who leaves only after it has ended."""
    gates, members = {}, {}
    for home in range(fabric.n_ranks):
        for node in range(fabric.n_nodes):
            forwarder = same_index_rank(fabric, home, node)
            on_node = {rank for rank in range(fabric.n_ranks) if fabric.rank_node[rank] == node}
            members[home, node] = on_node | {home}
            if phase == "dispatch":
                gates[home, node] = {home, forwarder} if cached else set(range(fabric.n_ranks))
            else:
                gates[home, node] = {forwarder} | {rank for rank in on_node if rank_copies[home, rank]}
    return gates, members
