"""Whether recorded routing is less even than a baseline's: the figures of both, their difference, and its noise.

Experts lie contiguously on the ranks. A figure is the mean of the layers', where its meaning does not say otherwise.
The noise is that of drawing other tokens: each recording is drawn anew from its own blocks, with replacement (whole
sequences where they are marked, else blocks of 256 tokens; of counts, recorded steps; neighbours joined to at most 256
blocks). A change is outside the noise above 1.96 standard deviations of the difference of the logarithms. Not in it:
another text, another engine.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.dumps.layer_loads import contiguous_ranks, distinct_places
from moesim.dumps.routing_trace import RoutingTrace
from moesim.errors import InputError

DRAWS = 200
BLOCK_TOKENS = 256
MOST_BLOCKS = 256
LEAST_BLOCKS = 8
_TIMES_SIGMA = 1.96

# Of the engines: SGLang adds 1e-5 to both sides against a division by 0, which no recording shows.
MEANINGS = {
    "expert_load_max_over_mean": "busiest expert over the mean",
    "rank_load_max_over_mean": "busiest rank over the mean",
    "node_load_max_over_mean": "busiest node over the mean",
    "max_violation": "(busiest expert - mean) / mean",
    "sglang_utilization": "SGLang's utilization rate: mean rank over busiest, the mean of the layers",
    "vllm_balancedness": "vLLM's balancedness: means of the ranks summed over layers, over the busiest ranks summed",
    "rank_copies_per_token": "different ranks that a token's experts are on",
    "node_copies_per_token": "different nodes that a token's experts are on",
}
_MORE_IS_BETTER = ("sglang_utilization", "vllm_balancedness")


@dataclass(frozen=True)
class Checked:
    """One figure of a recording beside the baseline's.

    Attributes:
        worse: by which share it is worse than the baseline's; negative where it is better.
        noise: share that other tokens would move the ratio by, 95 %; None where the recordings do not say it.
    """

    name: str
    value: float
    baseline: float
    worse: float
    noise: float | None

    def fails(self, limit: float) -> bool:
        """Whether it is worse by more than the limit, a share, and outside the noise."""
        return self.worse > limit and (self.noise is None or self.worse > self.noise)


def check_balance(trace: RoutingTrace, baseline: RoutingTrace, n_ranks: int, ranks_per_node: int) -> list[Checked]:
    """Compare two recordings of the same layers, figure by figure; without ids the copies are left out.

    Raises:
        InputError: other layers or another number of experts, or fewer experts than ranks.
    """
    if trace.layers != baseline.layers or trace.n_experts != baseline.n_experts:
        raise InputError(
            f"{len(trace.layers)} layers of {trace.n_experts} experts, the baseline has {len(baseline.layers)} of "
            f"{baseline.n_experts}", "--against", "compare recordings of the same layers of one model",
        )  # fmt: skip
    if n_ranks > trace.n_experts:
        raise InputError(f"{n_ranks} ranks for {trace.n_experts} experts", "--ranks", f"at most {trace.n_experts}")
    rank = contiguous_ranks(trace.n_experts, n_ranks)
    sides = [_figures(one, rank, rank // ranks_per_node) for one in (trace, baseline)]
    rows = []
    for name in (name for name in MEANINGS if all(name in values for values, _ in sides)):
        (value, drawn), (before, drawn_before) = ((values[name], drawn.get(name)) for values, drawn in sides)
        sign = -1 if name in _MORE_IS_BETTER else 1
        noise = None
        if drawn is not None and drawn_before is not None:
            spread = np.hypot(*(np.log(np.maximum(each, 1e-12)).std() for each in (drawn, drawn_before)))
            noise = float(np.expm1(_TIMES_SIGMA * spread))
        ratio = (value / before) ** sign if min(value, before) > 0 else 1.0
        rows.append(Checked(name, value, before, ratio - 1, noise))
    return rows


def _figures(
    trace: RoutingTrace, rank: NDArray[np.int64], node: NDArray[np.int64]
) -> tuple[dict[str, float], dict[str, NDArray[np.float64]]]:
    """Figures of a recording, and those of every draw of its blocks."""
    counts, copies, tokens = _blocks(trace, rank, node)
    ones = np.ones((1, len(counts)))
    found = {name: float(each[0]) for name, each in _of_draws(ones, counts, copies, tokens, rank, node).items()}
    if len(counts) < LEAST_BLOCKS:
        return found, {}
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=DRAWS).astype(np.float64)
    return found, _of_draws(drawn, counts, copies, tokens, rank, node)


def _of_draws(
    times: NDArray[np.float64], counts: NDArray[np.float64], copies: Mapping[str, NDArray[np.float64]],
    tokens: NDArray[np.float64], rank: NDArray[np.int64], node: NDArray[np.int64],
) -> dict[str, NDArray[np.float64]]:  # fmt: skip
    """Every figure [draws], block b being in draw d ``times[d, b]`` times; counts are [blocks, layers, experts]."""
    load = (times @ counts.reshape(len(counts), -1)).reshape(len(times), *counts.shape[1:])
    begins: Callable[[NDArray[np.int64]], Any] = lambda place: np.flatnonzero(np.diff(place, prepend=-1))  # noqa: E731
    by_rank = np.add.reduceat(load, begins(rank), axis=2)
    by_node = np.add.reduceat(load, begins(node), axis=2)
    expert, of_rank, of_node = (_max_over_mean(each) for each in (load, by_rank, by_node))
    figures = {
        "expert_load_max_over_mean": expert.mean(axis=1),
        "rank_load_max_over_mean": of_rank.mean(axis=1),
        "node_load_max_over_mean": of_node.mean(axis=1),
        "max_violation": expert.mean(axis=1) - 1,
        "sglang_utilization": (1 / of_rank).mean(axis=1),
        "vllm_balancedness": by_rank.mean(axis=2).sum(axis=1) / np.maximum(by_rank.max(axis=2).sum(axis=1), 1e-300),
    }
    return figures | {name: (times @ each) / np.maximum(times @ tokens, 1e-300) for name, each in copies.items()}


def _max_over_mean(load: NDArray[np.float64]) -> NDArray[np.float64]:
    mean = load.mean(axis=2)
    return np.where(mean > 0, load.max(axis=2) / np.where(mean > 0, mean, 1), 1.0)


def _blocks(
    trace: RoutingTrace, rank: NDArray[np.int64], node: NDArray[np.int64]
) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]], NDArray[np.float64]]:
    """Counts [blocks, layers, experts]; copies by name and tokens, [blocks]."""
    if trace.counts is not None:
        block = np.arange(len(trace.counts)) * min(MOST_BLOCKS, len(trace.counts)) // len(trace.counts)
        joined = np.add.reduceat(trace.counts, np.flatnonzero(np.diff(block, prepend=-1)), axis=0)
        return joined.astype(np.float64), {}, np.ones(len(joined))
    ids = trace.selected
    if ids is None:
        raise InputError("logits alone have no counts", fix="say how many experts a token selects: --top-k")
    unit = np.arange(ids.shape[1]) // BLOCK_TOKENS
    if trace.sequence is not None:
        unit = np.unique(trace.sequence, return_inverse=True)[1]
    n_blocks = min(MOST_BLOCKS, 1 + int(unit.max(initial=0)))
    block = unit * n_blocks // (1 + int(unit.max(initial=0)))
    counts = np.empty((n_blocks, len(ids), trace.n_experts))
    copies = {name: np.zeros(n_blocks) for name in ("rank_copies_per_token", "node_copies_per_token")}
    for layer, rows in enumerate(ids):
        cell = (block[:, None] * trace.n_experts + rows)[rows >= 0]
        counts[:, layer] = np.bincount(cell, minlength=counts[:, layer].size).reshape(n_blocks, -1)
        for name, place in zip(copies, (rank, node), strict=True):
            copies[name] += np.bincount(block, weights=distinct_places(rows, place), minlength=n_blocks) / len(ids)
    return counts, copies, np.bincount(block, minlength=n_blocks).astype(np.float64)
