"""Copies counted with sets, one token at a time: what moesim.traffic.copy_count must equal."""

import numpy as np


def count_with_sets(slot_ids, token_rank, slot_rank, n_ranks, ranks_per_node):
    n_nodes = (n_ranks + ranks_per_node - 1) // ranks_per_node
    selections, per_rank = np.zeros((2, n_ranks, n_ranks), int)
    per_node = np.zeros((n_ranks, n_nodes), int)
    for slots, source in zip(slot_ids, token_rank, strict=True):
        ranks = [slot_rank[slot] for slot in slots if slot != -1]
        for rank in ranks:
            selections[source, rank] += 1
        for rank in set(ranks):
            per_rank[source, rank] += 1
        for node in {rank // ranks_per_node for rank in ranks}:
            per_node[source, node] += 1
    return {"none": selections, "rank": per_rank, "node": per_node}
