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


def bytes_by_message_with_pxn(fabric, selections, bytes_per_copy, phase, seed=0):
    """Walk each message of NCCL with PXN and count the bytes on every link, [links]."""
    on_link = np.zeros(fabric.n_links)
    sent = selections if phase == "dispatch" else selections.T

    def hop(source, target, size):
        _, links = fabric.routes([source], [target], seed=seed)
        on_link[links] += size

    for source in range(fabric.n_ranks):
        for target in range(fabric.n_ranks):
            size = sent[source, target] * bytes_per_copy
            over = source
            if fabric.rank_node[source] != fabric.rank_node[target]:
                over = same_index_rank(fabric, target, fabric.rank_node[source])
            hop(source, over, size)
            hop(over, target, size)
    return on_link


def ports_of_rings(n_nodes, gpus, tokens):
    """Bytes that every GPU sends over NVLink and over its NIC when rings carry ``tokens[ranks]`` bytes to everybody.

    A ring per GPU of a node: it enters a node at one GPU, visits all in turn and leaves from the last one to the GPU of
    that index in the next node. It closes where the number of nodes is a multiple of the GPUs of one.
    """
    nvlink, nic = np.zeros((n_nodes, gpus)), np.zeros((n_nodes, gpus))
    for ring in range(gpus):
        order, enters = [], ring
        for node in range(n_nodes):
            order += [(node, (enters + step) % gpus) for step in range(gpus)]
            enters = (enters + gpus - 1) % gpus
        assert enters == ring or n_nodes == 1
        for start, (node, gpu) in enumerate(order):
            for hop in range(len(order) - 1):
                here, there = order[(start + hop) % len(order)], order[(start + hop + 1) % len(order)]
                wire = nvlink if here[0] == there[0] else nic
                wire[here] += tokens[node * gpus + gpu] / gpus
    return nvlink.ravel(), nic.ravel()
