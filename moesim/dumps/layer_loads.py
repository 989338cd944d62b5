"""How even recorded routing is, layer by layer, and how far a token's experts are spread; no cluster is simulated.

Experts are laid on the ranks contiguously, tokens evenly. Copies follow from ids; counts alone know nothing of which
experts a token selects together, and their copies are None.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.dumps.routing_trace import RoutingTrace


def layer_loads(trace: RoutingTrace, n_ranks: int, ranks_per_node: int) -> list[dict[str, Any]]:
    """Return a row per layer: selections, load of experts, ranks and nodes (max / mean), copies per token.

    ``uniform_router_expert_max_over_mean`` is what a router without any preference gives with that many tokens: the
    mean of 20 draws of a fixed seed.
    """
    counts = trace.expert_counts()
    ids = trace.selected
    rank = contiguous_ranks(trace.n_experts, n_ranks)
    node = rank // ranks_per_node
    rows = []
    for index, (layer, load) in enumerate(zip(trace.layers, counts, strict=True)):
        by_rank, by_node = (np.bincount(place, weights=load, minlength=1 + place.max()) for place in (rank, node))
        rows.append(
            {
                "layer": layer,
                "selections": int(load.sum()),
                "expert_load_max_over_mean": _max_over_mean(load),
                "uniform_router_expert_max_over_mean": _uniform(int(load.sum()), trace.n_experts),
                "experts_without_load": int((load == 0).sum()),
                "ranks_without_load": int((by_rank == 0).sum()),
                "rank_load_max_over_mean": _max_over_mean(by_rank),
                "node_load_max_over_mean": _max_over_mean(by_node),
                "rank_copies_per_token": None if ids is None else float(distinct_places(ids[index], rank).mean()),
                "node_copies_per_token": None if ids is None else float(distinct_places(ids[index], node).mean()),
            }
        )
    return rows


def _max_over_mean(load: np.ndarray) -> float:
    return float(load.max() / load.mean()) if load.sum() else 1.0


def _uniform(selections: int, n_experts: int) -> float:
    if not selections:
        return 1.0
    draws = np.random.default_rng(0).multinomial(selections, np.full(n_experts, 1 / n_experts), size=20)
    return float(np.mean(draws.max(axis=1) / (selections / n_experts)))


def contiguous_ranks(n_experts: int, n_ranks: int) -> NDArray[np.int64]:
    """Return the rank of each expert, laid contiguously, [experts]."""
    return np.repeat(np.arange(n_ranks), [len(part) for part in np.array_split(np.arange(n_experts), n_ranks)])


def distinct_places(ids: NDArray[np.int32], place: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many different places each token's experts ``ids[tokens, k]`` are at, ``place[experts]``; [tokens]."""
    found = np.zeros(len(ids), np.int64)
    for begin in range(0, 1 + int(place.max()), 62):  # as bits of so many places at a time; -1 is at none
        here = (place >= begin) & (place < begin + 62)
        bit = np.append(np.where(here, np.left_shift(1, np.where(here, place - begin, 0)), 0), 0)
        found += np.bitwise_count(np.bitwise_or.reduce(bit[ids], axis=1))
    return found
