"""Experts dealt by rule, no router involved: a named suite of imbalances, and what engines deal in benchmarks.

**The suite** W0 to W7 isolates one kind of imbalance each. It follows the table of an open proposal for Megatron-Core
(NVIDIA/Megatron-LM pull request 7488, September 2026), whose code is still changing; figures are ours where the table
gives none. Experts follow from the token's number, the seed and the step, whatever the number of ranks. A hot set is a
quarter of the experts (at least K); three tokens of four select among the hot ones only, the fourth among all.

**Engines** have switches that replace the router so that loads come out even. Each is dealt here as the engine does it,
its faults included: some leave ranks without a token when there are few (a run's notes say so).

More than ``MAX_DISTINCT`` tokens repeat them; rules without chance have that period anyway.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError
from moesim.workload.batch import Batch, drawn_batch
from moesim.workload.token_draw import Draw, Ints, tokens_of_ranks

MAX_DISTINCT = 65_536
_CHUNK_NUMBERS, _AT_ONCE, _SEQUENCE, _MOST_NODES = 1 << 24, 1 << 16, 256, 4
Ids = NDArray[np.int64]


WITH_REPLACEMENT = ("vllm-uniform-random", "vllm-normal-routing")
"""Rules that may deal a token an expert twice, as the engine does."""


def dealt_batch(
    kind: str, *, layers: Sequence[int], n_experts: int, top_k: int, n_ranks: int, rng: np.random.Generator,
    tokens_per_rank: int | Sequence[int] | None = None, ranks_per_node: int = 8, step: int = 0,
    popularity_rng: np.random.Generator | None = None,
) -> Batch:  # fmt: skip
    """Return a batch whose experts are dealt by a rule, named as in ``workload.synthetic.kind``.

    Args:
        kind: of the rule.
        layers: their numbers.
        n_experts, top_k, n_ranks, ranks_per_node: what is dealt to.
        rng: of the tokens.
        tokens_per_rank: one number or one per rank; one number under ``w4-ragged-sources`` is the mean, from half of it
            on the first rank to one and a half of it on the last.
        step: of hot sets that move.
        popularity_rng: of a hot set that is drawn, in the same state for every step; ``rng`` by default.

    Raises:
        InputError: no such rule, or one that cannot deal so many experts.
    """
    dealt = n_experts - n_experts // 2 if kind == "w5-zero-load" else n_experts
    if not 1 <= top_k <= dealt:
        raise InputError(f"top-{top_k} of the {dealt} experts that {kind} deals", "routing.top_k", f"1 to {dealt} fit")
    per_rank = tokens_of_ranks(tokens_per_rank, n_ranks)
    if kind == "w4-ragged-sources" and np.ndim(tokens_per_rank or 0) == 0 and n_ranks > 1:
        ends = np.rint(np.cumsum(np.linspace(0.5, 1.5, n_ranks) * per_rank)).astype(np.int64)
        per_rank = np.concatenate([ends[:1], ends[1:] - ends[:-1]])
    ends, tokens = np.cumsum(per_rank), int(per_rank.sum())
    begins, in_turn = ends - per_rank, kind == "sglang-round-robin"

    def number(token: Ids) -> Ids:
        if not in_turn:
            return token
        # Token i of rank r is number i R + r: SGLang deals over the data-parallel ranks in turn.
        rank = np.searchsorted(ends, token, side="right")
        return (token - begins[rank]) * n_ranks + rank

    span = int(number(ends[per_rank > 0] - 1).max()) + 1
    if span > MAX_DISTINCT:
        # Rules without chance repeat after E tokens, those with a hot set look at the number modulo 4.
        span = max(MAX_DISTINCT // math.lcm(n_experts, 4), 1) * math.lcm(n_experts, 4)
    dealt_to = np.zeros(span, np.bool_)
    for start in range(0, tokens, _AT_ONCE):
        dealt_to[number(np.arange(start, min(start + _AT_ONCE, tokens))) % span] = True
    rows, place = np.flatnonzero(dealt_to), np.cumsum(dealt_to, dtype=np.int32) - np.int32(1)

    def part(start: int, stop: int) -> tuple[Ints, Ints]:
        token = np.arange(start, stop)
        return place[number(token) % span], (token // _SEQUENCE).astype(np.int32)

    n_nodes, hot_rng = math.ceil(n_ranks / ranks_per_node), popularity_rng or rng
    ids: dict[int, NDArray[np.int32]] = {}
    for layer in dict.fromkeys(int(layer) for layer in layers):
        own = _deal(kind, span, n_experts, top_k, n_ranks, n_nodes, layer, step, rng, hot_rng)[rows]
        ids[layer] = np.sort(own, axis=1).astype(np.int32)
        if kind == "deepep-test-low-latency":  # ten places of each rank, some perhaps twice
            for rank in np.flatnonzero(per_rank):
                its = begins[rank] + rng.integers(per_rank[rank], size=10)
                ids[layer][place[number(its) % span], rng.integers(top_k, size=10)] = -1
    drawn = Draw(rows, per_rank, part, len(rows) < tokens)
    note = f"{tokens:,} tokens with experts dealt by {kind}, {len(rows):,} distinct; no router runs"
    return drawn_batch(drawn, n_experts, "synthetic", (note,), expert_ids=ids)


def _deal(
    kind: str, tokens: int, n_experts: int, top_k: int, n_ranks: int, n_nodes: int, layer: int, step: int,
    rng: np.random.Generator, hot_rng: np.random.Generator,
) -> Ids:  # fmt: skip
    """Experts [tokens, K] of one layer and step."""
    t, j = np.arange(tokens)[:, None], np.arange(top_k)[None, :]
    everyone, width = np.arange(n_experts), max(top_k, n_experts // 4)
    stride = max(n_experts // top_k, 1)

    def hot(experts: Ids, cold_every: int = 4) -> Ids:
        ids = _highest(everyone, tokens, top_k, rng)
        eager = np.arange(tokens) % cold_every != 0
        ids[eager] = _highest(experts, int(eager.sum()), top_k, rng)
        return ids

    match kind:
        case "w0-balanced":
            return (t * top_k + j) % n_experts
        case "w1-hot-experts":
            return hot(hot_rng.permutation(n_experts)[:width])
        case "w2-hot-rank":
            return hot(everyone[:width])
        case "w3-spread":
            return hot(everyone[:width] * n_experts // width)
        case "w5-zero-load":
            return _highest(everyone[n_experts // 2 :], tokens, top_k, rng)
        case "w6-rotating-hotspot":
            return hot((step // 3 * width + everyone[:width]) % n_experts)
        case "w7-burst" if step % 4 == 3:
            return hot(everyone[:width], cold_every=2)
        case "w4-ragged-sources" | "w7-burst" | "deepep-test-low-latency":
            return _highest(everyone, tokens, top_k, rng)
        case "sglang-uniform":
            return (rng.integers(n_experts, size=(tokens, 1)) + j * stride) % n_experts
        case "sglang-round-robin":
            return (t + layer + j * stride) % n_experts
        case "vllm-uniform-random":
            return rng.integers(n_experts, size=(tokens, top_k))
        case "vllm-normal-routing":
            share = 1 / (1 + np.exp(-rng.standard_normal((tokens, top_k))))
            return np.minimum((share * n_experts).astype(np.int64), n_experts - 1)
        case "tensorrt-llm-balanced" if n_experts % n_ranks:
            what = f"{n_experts} experts do not divide by {n_ranks} ranks, as this rule needs"
            raise InputError(what, "workload.synthetic.kind", "use sglang-uniform or w0-balanced")
        case "tensorrt-llm-balanced":
            held, selection = n_experts // n_ranks, t * top_k + j
            return selection % n_ranks * held + selection // n_ranks % held
        case "deepep-test-normal":
            sizes = [len(part) for part in np.array_split(everyone, n_nodes)]
            return _highest(everyone, tokens, top_k, rng, np.repeat(np.arange(n_nodes), sizes))
    raise InputError(f"no rule {kind!r:.60}", "workload.synthetic.kind")


def _highest(pool: Ids, tokens: int, top_k: int, rng: np.random.Generator, node: Ids | None = None) -> Ids:
    """K of a pool for each token by the highest of as many random scores, all sets alike.

    With the ``node`` of each expert a token's experts are within the four nodes of the highest scores, as DeepEP's test
    of its normal kernels draws them.
    """
    ids = np.empty((tokens, top_k), np.int64)
    chunk = max(1, _CHUNK_NUMBERS // len(pool))
    for start in range(0, tokens, chunk):
        rows = ids[start : start + chunk]
        scores = rng.random((len(rows), len(pool)), dtype=np.float32)
        if node is not None and node[-1] >= _MOST_NODES:
            best = np.maximum.reduceat(scores, np.flatnonzero(np.diff(node, prepend=-1)), axis=1)
            least = np.partition(best, -_MOST_NODES, axis=1)[:, -_MOST_NODES, None]
            scores[(best < least)[:, node]] = -1
        rows[:] = pool[np.argpartition(scores, -top_k, axis=1)[:, -top_k:]]
    return ids
