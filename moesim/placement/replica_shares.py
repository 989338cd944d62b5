"""Linear program over replicas: which share of its expert's load each takes, so that the fullest rank has least.

Minimise z subject to: the slots of expert e take load_e together, the slots on rank r take at most z together. Solved
by HiGHS through scipy. The program sees one load; of another one its shares are no better than even ones.

Source: the idea of github.com/deepseek-ai/LPLB, which solves it for every batch on the GPU.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InvariantError
from moesim.placement.slots import Placement


def with_lp_shares(placement: Placement, load: NDArray[np.float64]) -> Placement:
    """Return the placement of one layer with the shares that are best for ``load`` [experts]."""
    from scipy.optimize import linprog  # takes longer to load than most placements to be made
    from scipy.sparse import csr_array

    expert, rank = placement.slot_expert, placement.slot_rank
    replicas = placement.replicas()
    free = np.flatnonzero(replicas[expert] > 1)
    share = np.ones(placement.n_slots)
    if free.size and load.sum():
        scale = load.sum() / placement.n_ranks
        alone = replicas[expert] == 1
        fixed = np.bincount(rank[alone], weights=load[expert[alone]] / scale, minlength=placement.n_ranks)
        names, row = np.unique(expert[free], return_inverse=True)
        column, one = np.arange(free.size), np.ones(free.size)
        n_ranks = placement.n_ranks
        at_rank = csr_array(
            (np.concatenate([one, -np.ones(n_ranks)]),
             (np.concatenate([rank[free], np.arange(n_ranks)]), np.concatenate([column, np.full(n_ranks, free.size)]))),
            shape=(n_ranks, free.size + 1),
        )  # fmt: skip
        of_expert = csr_array((one, (row, column)), shape=(len(names), free.size + 1))
        want = load[names] / scale
        cost = np.append(np.zeros(free.size), 1.0)
        found = linprog(cost, A_ub=at_rank, b_ub=-fixed, A_eq=of_expert, b_eq=want, method="highs")
        if found.status != 0:
            raise InvariantError(f"the linear program over replicas has no optimum: {found.message}")
        taken = np.maximum(found.x[:-1], 0)
        total = np.bincount(row, weights=taken)[row]
        # An expert that nobody selected shares evenly.
        share[free] = np.where(total > 0, taken / np.where(total > 0, total, 1), 1 / replicas[expert[free]])
    return replace(placement, share=share)
