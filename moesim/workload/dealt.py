"""Experts dealt by rule, no router involved: a named suite of imbalances, and what engines deal in benchmarks.

**The suite** W0 to W7 isolates one kind of imbalance each. It follows the table of an open proposal for Megatron-Core
(NVIDIA/Megatron-LM pull request 7488, September 2026), whose code is still changing; names and figures are ours where
the table gives none. Experts follow from the token's number, the seed and the step alone, whatever the number of ranks.
A hot set is a quarter of the experts (at least K); three tokens of four select among the hot ones only, the fourth among
all.

**Engines** have switches that replace the router so that loads come out even. Each is dealt here as the engine does it,
its faults included: some leave ranks without a token when there are few (a run's notes say so).

More than ``MAX_DISTINCT`` tokens repeat them; rules without chance have that period anyway.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError
from moesim.workload.batch import Batch, given_experts
from moesim.workload.token_draw import Draw, tokens_of_ranks

MAX_DISTINCT = 65_536
DEFAULT_TOKENS_PER_RANK = 4096
_CHUNK_NUMBERS = 1 << 24
_ROTATION_STEPS, _BURST_PERIOD, _MASKED, _BLOCK = 3, 4, 10, 256
Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Table:
    """What a rule deals: D tokens of one layer and step, K of E experts to each, on so many ranks and nodes."""

    tokens: int
    n_experts: int
    top_k: int
    n_ranks: int
    n_nodes: int
    layer: int
    step: int
    rng: np.random.Generator
    hot_rng: np.random.Generator

    @property
    def number(self) -> Ids:
        """Number of each token, [D, 1]."""
        return np.arange(self.tokens)[:, None]

    @property
    def place(self) -> Ids:
        """Number of each of a token's selections, [1, K]."""
        return np.arange(self.top_k)[None, :]

    @property
    def hot_width(self) -> int:
        """Experts of a hot set."""
        return max(self.top_k, self.n_experts // 4)


def _among(table: Table, pool: Ids) -> Ids:
    """K different experts of a pool for each token, all sets alike."""
    ids = np.empty((table.tokens, table.top_k), np.int64)
    chunk = max(1, _CHUNK_NUMBERS // len(pool))
    for start in range(0, table.tokens, chunk):
        rows = ids[start : start + chunk]
        keys = table.rng.random((len(rows), len(pool)), dtype=np.float32)
        rows[:] = pool[np.argpartition(keys, table.top_k - 1, axis=1)[:, : table.top_k]]
    return ids


def _everyone(table: Table) -> Ids:
    return _among(table, np.arange(table.n_experts))


def _hot(table: Table, hot: Ids, cold_every: int = 4) -> Ids:
    """Tokens select among the hot experts, but every ``cold_every``-th among all."""
    ids = _everyone(table)
    eager = np.arange(table.tokens) % cold_every != 0
    ids[eager] = _among(replace(table, tokens=int(eager.sum())), hot)
    return ids


def _balanced(table: Table) -> Ids:
    return (table.number * table.top_k + table.place) % table.n_experts


def _hot_experts(table: Table) -> Ids:
    return _hot(table, table.hot_rng.permutation(table.n_experts)[: table.hot_width])


def _block(table: Table, first: int = 0) -> Ids:
    return (first + np.arange(table.hot_width)) % table.n_experts


def _spread(table: Table) -> Ids:
    return _hot(table, np.arange(table.hot_width) * table.n_experts // table.hot_width)


def _zero_load(table: Table) -> Ids:
    return _among(table, np.arange(table.n_experts // 2, table.n_experts))


def _rotating(table: Table) -> Ids:
    return _hot(table, _block(table, table.step // _ROTATION_STEPS * table.hot_width))


def _burst(table: Table) -> Ids:
    burst = table.step % _BURST_PERIOD == _BURST_PERIOD - 1
    return _hot(table, _block(table), cold_every=2) if burst else _everyone(table)


def _stride(table: Table) -> Ids:
    return table.place * max(table.n_experts // table.top_k, 1)


def _sglang_uniform(table: Table) -> Ids:
    return (table.rng.integers(table.n_experts, size=(table.tokens, 1)) + _stride(table)) % table.n_experts


def _sglang_round_robin(table: Table) -> Ids:
    return (table.number + table.layer + _stride(table)) % table.n_experts


def _vllm_uniform(table: Table) -> Ids:
    return table.rng.integers(table.n_experts, size=(table.tokens, table.top_k))


def _vllm_normal(table: Table) -> Ids:
    share = 1 / (1 + np.exp(-table.rng.standard_normal((table.tokens, table.top_k))))
    return np.minimum((share * table.n_experts).astype(np.int64), table.n_experts - 1)


def _tensorrt_llm(table: Table) -> Ids:
    if table.n_experts % table.n_ranks:
        what = f"{table.n_experts} experts do not divide by {table.n_ranks} ranks, as this generator needs"
        raise InputError(what, "workload.synthetic.kind", "use sglang-uniform or w0-balanced")
    held, selection = table.n_experts // table.n_ranks, table.number * table.top_k + table.place
    return selection % table.n_ranks * held + selection // table.n_ranks % held


def _deepep_normal(table: Table) -> Ids:
    """The highest K of |normal| + 1 scores, within the 4 nodes of the highest scores."""
    ids = np.empty((table.tokens, table.top_k), np.int64)
    sizes = [len(part) for part in np.array_split(np.arange(table.n_experts), table.n_nodes)]
    node, first = np.repeat(np.arange(table.n_nodes), sizes), np.cumsum([0, *sizes[:-1]])
    reach = min(table.n_nodes, 4)
    chunk = max(1, _CHUNK_NUMBERS // table.n_experts)
    for start in range(0, table.tokens, chunk):
        rows = ids[start : start + chunk]
        scores = np.abs(table.rng.standard_normal((len(rows), table.n_experts), dtype=np.float32)) + 1
        best = np.maximum.reduceat(scores, first, axis=1)
        least = -np.partition(-best, reach - 1, axis=1)[:, reach - 1 : reach]
        scores[(best < least)[:, node]] = 0
        rows[:] = np.argpartition(-scores, table.top_k - 1, axis=1)[:, : table.top_k]
    return ids


RULES: Mapping[str, Callable[[Table], Ids]] = {
    "w0-balanced": _balanced,
    "w1-hot-experts": _hot_experts,
    "w2-hot-rank": lambda table: _hot(table, _block(table)),
    "w3-spread": _spread,
    "w4-ragged-sources": _everyone,
    "w5-zero-load": _zero_load,
    "w6-rotating-hotspot": _rotating,
    "w7-burst": _burst,
    "sglang-uniform": _sglang_uniform,
    "sglang-round-robin": _sglang_round_robin,
    "vllm-uniform-random": _vllm_uniform,
    "vllm-normal-routing": _vllm_normal,
    "tensorrt-llm-balanced": _tensorrt_llm,
    "deepep-test-normal": _deepep_normal,
    "deepep-test-low-latency": _everyone,
}
"""By the name of ``workload.synthetic.kind``, what deals the experts of one layer, [D, K]."""


def dealt_batch(
    kind: str,
    *,
    layers: Sequence[int],
    n_experts: int,
    top_k: int,
    n_ranks: int,
    rng: np.random.Generator,
    tokens_per_rank: int | Sequence[int] | None = DEFAULT_TOKENS_PER_RANK,
    ranks_per_node: int = 8,
    step: int = 0,
    popularity_rng: np.random.Generator | None = None,
) -> Batch:
    """Return a batch whose experts are dealt by a rule of ``RULES``.

    Args:
        kind: of the rule.
        layers: numbers of the layers.
        n_experts, top_k, n_ranks, ranks_per_node: what is dealt to.
        rng: of the tokens.
        tokens_per_rank: one number or one per rank. One number under ``w4-ragged-sources`` is the mean: from half of
            it on the first rank to one and a half of it on the last.
        step: number of the batch, for hot sets that move.
        popularity_rng: of a hot set that is drawn, in the same state for every step; ``rng`` by default.

    Raises:
        InputError: no such rule, or one that cannot deal so many experts.
    """
    if kind not in RULES:
        raise InputError(f"no rule {kind!r:.60}", "workload.synthetic.kind", f"use {', '.join(RULES)}")
    least = n_experts // 2 if kind == "w5-zero-load" else 0
    if not 1 <= top_k <= n_experts - least:
        what = f"top-{top_k} of the {n_experts - least} experts that {kind} deals"
        raise InputError(what, "routing.top_k", f"1 to {n_experts - least} is possible")
    given = DEFAULT_TOKENS_PER_RANK if tokens_per_rank is None else tokens_per_rank
    per_rank = tokens_of_ranks(given, n_ranks, available=0)
    if kind == "w4-ragged-sources" and np.ndim(given) == 0 and n_ranks > 1:
        ends = np.cumsum(np.linspace(0.5, 1.5, n_ranks) * per_rank)
        starts = np.rint([0.0, *ends]).astype(np.int64)
        per_rank = starts[1:] - starts[:-1]
    token_rank = np.repeat(np.arange(n_ranks, dtype=np.int32), per_rank)
    number = np.arange(len(token_rank))
    if kind == "sglang-round-robin":
        # Token i of rank r is number i R + r: SGLang deals over the data-parallel ranks in turn.
        number = (number - np.repeat(np.cumsum(per_rank) - per_rank, per_rank)) * n_ranks + token_rank
    span = int(number.max()) + 1
    if span > MAX_DISTINCT:
        # Rules without chance repeat after E tokens, those with a hot set look at the number modulo 4.
        period = math.lcm(n_experts, 4)
        span = max(MAX_DISTINCT // period, 1) * period
    rows, token_index = np.unique(number % span, return_inverse=True)
    n_nodes, hot_rng = math.ceil(n_ranks / ranks_per_node), rng if popularity_rng is None else popularity_rng
    ids: dict[int, NDArray[np.int32]] = {}
    for layer in dict.fromkeys(int(layer) for layer in layers):
        table = Table(span, n_experts, top_k, n_ranks, n_nodes, layer, step, rng, hot_rng)
        ids[layer] = np.sort(RULES[kind](table)[rows], axis=1).astype(np.int32)
        if kind == "deepep-test-low-latency":
            for rank in np.flatnonzero(per_rank):
                its = token_index[token_rank == rank]
                ids[layer][its[rng.integers(len(its), size=_MASKED)], rng.integers(top_k, size=_MASKED)] = -1
    sequence = (np.arange(len(number)) // _BLOCK).astype(np.int32)
    drawn = Draw(rows, token_index.astype(np.int32), token_rank, sequence, len(rows) < len(number))
    note = f"{len(number):,} tokens with experts dealt by {kind}, {len(rows):,} distinct; no router runs"
    return given_experts(ids, n_experts, drawn, "synthetic", (note,))
