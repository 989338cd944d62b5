"""Copies counted with sets, one token at a time: what moesim.traffic.copy_count must equal."""

import math

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


def expected_distinct(n_groups, n_experts, top_k):
    """Mean number of distinct groups among ``top_k`` of ``n_experts`` experts drawn uniformly.

    For X equal groups ``d(X) = X (1 - C(E - E/X, K) / C(E, K))``; others are those of ``numpy.array_split``. With ranks
    or nodes as groups: copies per token under a uniform router without a limit (DeepEP, ``get_theoretical_num_sms``).
    """
    size, longer = divmod(n_experts, n_groups)
    draws = math.comb(n_experts, top_k)
    groups = ((n_groups - longer, size), (longer, size + 1))
    return n_groups - sum(count * (math.comb(n_experts - held, top_k) / draws) for count, held in groups if count)
