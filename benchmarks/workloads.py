"""Flow sets that the engine is measured on: one dispatch of a Mixture-of-Experts layer on a rail-optimised cluster.

Ranks are GPUs, eight to a node. Each GPU has an NVLink port out and in (160 GB/s) and a NIC port out and in
(50 GB/s); GPU i of a node reaches GPU i of another node over their rail, and another index by the same-index GPU
and NVLink. Tokens: 4,096 per GPU, hidden 7168 in FP8, top-8 of 256 experts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

GPUS_PER_NODE = 8
NVLINK, NIC = 160e9, 50e9
TOKENS, TOP_K, EXPERTS = 4096, 8, 256
BYTES_PER_COPY = 7168 + 4 * 7168 // 128
"""FP8 payload and one 4-byte scale per 128 values."""


@dataclass(frozen=True)
class Flows:
    """Arguments of ``solve_flows`` without latencies: starts are absolute."""

    name: str
    capacity: NDArray[np.float64]
    route_ptr: NDArray[np.int64]
    route_links: NDArray[np.int32]
    weight: NDArray[np.float64] | None
    size: NDArray[np.float64]
    start: NDArray[np.float64]
    ends: NDArray[np.int64]
    """[2, flows] where each flow comes from and goes to; a pair is named once."""

    @property
    def n(self) -> int:
        """Number of flows."""
        return len(self.size)

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of ``solve_flows``."""
        return {
            "capacity": self.capacity,
            "latency": np.zeros(len(self.capacity)),
            "route_ptr": self.route_ptr,
            "route_links": self.route_links,
            "weight": self.weight,
            "size": self.size,
            "start": self.start,
        }

    def bound(self) -> float:
        """Largest over links of bytes over capacity: no schedule is faster, seconds (all starts 0)."""
        flow = np.repeat(np.arange(self.n), np.diff(self.route_ptr))
        weight = 1.0 if self.weight is None else self.weight
        load = np.bincount(self.route_links, weights=self.size[flow] * weight, minlength=len(self.capacity))
        return float((load / self.capacity).max())


def popularity(kind: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """Probability of each expert: ``zipf`` (exponent 1, shuffled) or ``uniform``."""
    p = 1.0 / np.arange(1, EXPERTS + 1) if kind == "zipf" else np.ones(EXPERTS)
    return rng.permutation(p / p.sum())


def rank_copies(n_ranks: int, kind: str, seed: int) -> NDArray[np.float64]:
    """Copies from each rank to each rank, multinomial over experts that lie in contiguous blocks on the ranks."""
    rng = np.random.default_rng(seed)
    if n_ranks <= EXPERTS:
        on_rank = popularity(kind, rng).reshape(n_ranks, -1).sum(1)
    else:  # more ranks than experts: each expert has as many replicas as needed
        on_rank = np.repeat(popularity(kind, rng), n_ranks // EXPERTS) / (n_ranks // EXPERTS)
    return rng.multinomial(TOKENS * TOP_K, on_rank, size=n_ranks).astype(np.float64)


def pairs(n_ranks: int, kind: str = "zipf", seed: int = 0) -> Flows:
    """One flow for each (source GPU, destination GPU) with copies to send; NIC, then NVLink where rails differ."""
    copies = rank_copies(n_ranks, kind, seed)
    np.fill_diagonal(copies, 0)
    source, target = np.nonzero(np.ones_like(copies) - np.eye(n_ranks))
    nvlink_out, nvlink_in, nic_out, nic_in = (np.arange(n_ranks) + i * n_ranks for i in range(4))
    same_node = source // GPUS_PER_NODE == target // GPUS_PER_NODE
    relay = target // GPUS_PER_NODE * GPUS_PER_NODE + source % GPUS_PER_NODE
    hops = np.full((len(source), 4), -1)
    hops[same_node, 0] = nvlink_out[source[same_node]]
    hops[same_node, 1] = nvlink_in[target[same_node]]
    far = ~same_node
    hops[far, 0], hops[far, 1] = nic_out[source[far]], nic_in[relay[far]]
    turns = far & (relay != target)
    hops[turns, 2], hops[turns, 3] = nvlink_out[relay[turns]], nvlink_in[target[turns]]
    return _flows(
        f"{n_ranks} GPUs, pairs, {kind}",
        np.repeat([NVLINK, NVLINK, NIC, NIC], n_ranks),
        hops,
        copies[source, target] * BYTES_PER_COPY,
        (source, target),
    )


def switch(n_ranks: int, kind: str = "zipf", seed: int = 0) -> Flows:
    """One flow for each pair of ranks on one non-blocking switch of 50 GB/s ports."""
    copies = rank_copies(n_ranks, kind, seed) if kind != "equal" else np.full((n_ranks, n_ranks), 128.0)
    source, target = np.nonzero(np.ones_like(copies) - np.eye(n_ranks))
    hops = np.column_stack([source, n_ranks + target])
    capacity = np.full(2 * n_ranks, NIC)
    size = copies[source, target] * BYTES_PER_COPY
    return _flows(f"{n_ranks} ranks, one switch, {kind}", capacity, hops, size, (source, target))


def leaf_spine(n_nodes: int, nodes_per_leaf: int = 16, seed: int = 0) -> Flows:
    """Zipf traffic summed over the GPUs of a node; nodes on leaves, a static hash picks each pair's spine."""
    n_leaves = n_nodes // nodes_per_leaf
    spines = nodes_per_leaf // 2
    ranks = n_nodes * GPUS_PER_NODE
    copies = rank_copies(ranks, "zipf", seed).reshape(n_nodes, GPUS_PER_NODE, n_nodes, GPUS_PER_NODE).sum((1, 3))
    source, target = np.nonzero(np.ones_like(copies) - np.eye(n_nodes))
    spine = np.random.default_rng(seed + 1).integers(0, spines, len(source))
    up, down = 2 * n_nodes, 2 * n_nodes + n_leaves * spines
    hops = np.column_stack([source, up + source // nodes_per_leaf * spines + spine, np.full_like(source, -1), source])
    hops[:, 2], hops[:, 3] = down + target // nodes_per_leaf * spines + spine, n_nodes + target
    within = source // nodes_per_leaf == target // nodes_per_leaf
    hops[within, 1:3] = -1
    port = NIC * GPUS_PER_NODE
    capacity = np.concatenate([np.full(2 * n_nodes, port), np.full(2 * n_leaves * spines, port)])
    size = copies[source, target] * BYTES_PER_COPY
    return _flows(f"{n_nodes} nodes, leaf-spine, by node", capacity, hops, size, (source, target))


def trees(n_ranks: int, kind: str = "zipf", seed: int = 0) -> Flows:
    """Hierarchical dispatch: one flow per (source GPU, node), weighted on the NVLink ports that it fans out over.

    Of the c copies for a node, deduplicated, the NIC carries one each; receiver g's NVLink carries its part and the
    forwarder's NVLink all but its own.
    """
    rng = np.random.default_rng(seed)
    n_nodes = n_ranks // GPUS_PER_NODE
    by_rank = rank_copies(n_ranks, kind, seed).reshape(n_ranks, n_nodes, GPUS_PER_NODE)
    wanted = by_rank.sum(2)
    at_node = np.ceil(wanted * rng.uniform(0.55, 0.75, wanted.shape)).clip(by_rank.max(2), wanted)
    source, node = (index.ravel() for index in np.indices((n_ranks, n_nodes)))
    forwarder = node * GPUS_PER_NODE + source % GPUS_PER_NODE
    receiver = node[:, None] * GPUS_PER_NODE + np.arange(GPUS_PER_NODE)
    copies = by_rank.reshape(-1, GPUS_PER_NODE).copy()
    total = at_node.ravel()
    copies[receiver == forwarder[:, None]] = 0
    far = source // GPUS_PER_NODE != node
    links = np.concatenate(
        [
            np.where(far, 2 * n_ranks + source, -1)[:, None],
            np.where(far, 3 * n_ranks + forwarder, -1)[:, None],
            forwarder[:, None],
            n_ranks + receiver,
        ],
        1,
    )
    share = np.concatenate([np.tile(total[:, None], 2), copies.sum(1)[:, None], copies], 1) / total.clip(1)[:, None]
    used = (links >= 0) & (share > 0)
    keep = used.any(1) & (total > 0)
    used, links, share = used[keep], links[keep], share[keep]
    return Flows(
        f"{n_ranks} GPUs, trees, {kind}",
        np.repeat([NVLINK, NVLINK, NIC, NIC], n_ranks),
        np.concatenate([[0], np.cumsum(used.sum(1))]),
        links[used].astype(np.int32),
        share[used],
        total[keep] * BYTES_PER_COPY,
        np.zeros(int(keep.sum())),
        np.stack([source[keep], n_ranks + node[keep]]),
    )


def _flows(
    name: str, capacity: NDArray[np.float64], hops: NDArray[Any], size: NDArray[np.float64], ends: tuple[Any, Any]
) -> Flows:
    some = size > 0
    used = hops[some] >= 0
    return Flows(
        name,
        capacity,
        np.concatenate([[0], np.cumsum(used.sum(1))]),
        hops[some][used].astype(np.int32),
        None,
        size[some],
        np.zeros(int(some.sum())),
        np.stack(ends)[:, some],
    )
