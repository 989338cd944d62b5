"""How even recorded routing is, layer by layer, and how far a token's experts are spread; no cluster is simulated.

Experts are laid on the ranks contiguously, tokens evenly. Copies follow from ids; counts alone know nothing of which
experts a token selects together, and their copies are None.
"""

from typing import Any

import numpy as np

from moesim.dumps.routing_trace import RoutingTrace


def layer_loads(trace: RoutingTrace, n_ranks: int, ranks_per_node: int) -> list[dict[str, Any]]:
    """Return a row per layer: selections, load of experts, ranks and nodes (max / mean), copies per token.

    ``uniform_router_expert_max_over_mean`` is what a router without any preference gives with that many tokens: the
    mean of 20 draws of a fixed seed.
    """
    counts = trace.expert_counts()
    ids = trace.selected
    sizes = [len(part) for part in np.array_split(np.arange(trace.n_experts), n_ranks)]
    rank = np.repeat(np.arange(n_ranks), sizes)
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
                "rank_copies_per_token": None if ids is None else _places(ids[index], rank),
                "node_copies_per_token": None if ids is None else _places(ids[index], node),
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


def _places(ids: np.ndarray, place: np.ndarray) -> float:
    """Mean number of different places that a token's experts are at."""
    at = np.sort(np.where(ids < 0, -1, place[np.maximum(ids, 0)]), axis=1)
    different = np.diff(at, axis=1, prepend=-1) > 0
    return float(different.sum() / len(ids))
