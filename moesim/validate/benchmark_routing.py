"""Tokens routed as each library's own benchmark routes them, counted into copies.

DeepEP's tests draw random scores; on several nodes a token may use the four nodes with its best scores. Its
low-latency test masks ten random selections per rank. Hybrid-EP's test draws from one seed on every rank, so that all
ranks route alike. TensorRT-LLM's balanced router sends the tokens of every rank to groups of eight consecutive ranks
in turn.

A draw is seeded by its setting alone. Nobody publishes theirs, and with few tokens the busiest port differs from draw
to draw: of five draws the one whose busiest port is the median stands for all. Large batches need no such care; there
one node's tokens are drawn and the other nodes' are the same, turned on by one node each, and past 16,384 tokens per
rank the copies of 16,384 are multiplied.
"""

import functools
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from moesim.traffic import Copies, count_all_copies

_DRAWS = 5
# Tokens of all ranks up to which every rank draws its own.
_FEW_TOKENS = 8192
# Tokens of a rank past which copies are multiplied.
MOST_TOKENS = 16_384
_CHUNK = 2048
# What DeepEP's test_low_latency.py masks.
_MASKED = 10

Ids = NDArray[np.int32]


@functools.lru_cache(maxsize=64)
def random_copies(
    ranks: int, per_node: int, tokens: int, experts: int, top_k: int, top_nodes: int | None = None, masked: bool = False
) -> Copies:
    """Copies of random scores.

    Args:
        ranks, per_node: GPUs, and how many of them a node has.
        tokens: per rank.
        experts: of the layer, contiguous on the ranks.
        top_k: experts of a token.
        top_nodes: nodes that a token may use, those of its best scores; None for no limit.
        masked: ten random selections of each rank are dropped.

    Raises:
        ValueError: more than 16,384 tokens, and no multiple.
    """
    if tokens > MOST_TOKENS:
        times, rest = divmod(tokens, MOST_TOKENS)
        if rest:
            raise ValueError(f"{tokens} tokens are not a multiple of {MOST_TOKENS}")
        drawn = random_copies(ranks, per_node, MOST_TOKENS, experts, top_k, top_nodes)
        return Copies(*(times * matrix for matrix in (drawn.selections, drawn.rank_copies, drawn.node_copies)))
    nodes = ranks // per_node
    few = tokens * ranks <= _FEW_TOKENS
    sources = ranks if few else per_node

    def draw(number: int) -> Copies:
        rng = np.random.default_rng([ranks, per_node, tokens, experts, top_k, number])
        limit = top_nodes if top_nodes is not None and top_nodes < nodes else None
        copies = _none(ranks, nodes)
        for rank in range(sources):
            for ids in _random_ids(rng, tokens, experts, top_k, nodes, limit):
                if masked:
                    ids[rng.integers(0, len(ids), _MASKED), rng.integers(0, top_k, _MASKED)] = -1
                copies = copies + _counted(ids, rank, ranks, per_node, experts)
        return copies if few else _turned(copies, per_node)

    return _typical(draw, _DRAWS if few else 1, per_node)


@functools.lru_cache(maxsize=32)
def one_seed_copies(ranks: int, per_node: int, tokens: int, experts: int, top_k: int) -> Copies:
    """Copies of Hybrid-EP's test: every rank draws the same experts, so some ranks are hot."""

    def draw(number: int) -> Copies:
        rng = np.random.default_rng([ranks, per_node, tokens, experts, top_k, number])
        one = _none(ranks, ranks // per_node)
        for ids in _random_ids(rng, tokens, experts, top_k, 1, None):
            one = one + _counted(ids, 0, ranks, per_node, experts)
        all_alike = np.zeros(ranks, np.int64)
        return Copies(one.selections[all_alike], one.rank_copies[all_alike], one.node_copies[all_alike])

    return _typical(draw, _DRAWS, per_node)


@functools.lru_cache(maxsize=64)
def balanced_copies(ranks: int, tokens: int, top_k: int) -> Copies:
    """Copies of TensorRT-LLM's balanced router on one NVLink domain.

    Token t of every rank goes to ranks t K to t K + K - 1, counted round: eight consecutive ranks, each once, or all
    ranks of a smaller group, each equally often.
    """
    start = (np.arange(tokens) * top_k) % ranks
    visits = np.zeros(ranks, np.int64)
    distinct = np.zeros(ranks, np.int64)
    np.add.at(visits, (start[:, None] + np.arange(top_k)) % ranks, 1)
    np.add.at(distinct, (start[:, None] + np.arange(min(top_k, ranks))) % ranks, 1)
    every = np.zeros((ranks, 1), np.int64)
    return Copies(every + visits, every + distinct, every + tokens)


def equal_messages(ranks: int, per_pair: int) -> Copies:
    """What an all-to-all of equal messages sends: the same bytes from every rank to every rank."""
    each = np.full((ranks, ranks), per_pair, np.int64)
    return Copies(each, each, each.sum(axis=1, keepdims=True))


def _none(ranks: int, nodes: int) -> Copies:
    return Copies(
        np.zeros((ranks, ranks), np.int64), np.zeros((ranks, ranks), np.int64), np.zeros((ranks, nodes), np.int64)
    )


def _counted(ids: Ids, rank: int, ranks: int, per_node: int, experts: int) -> Copies:
    owner = np.arange(experts) * ranks // experts
    return count_all_copies(ids, np.full(len(ids), rank, np.int32), owner, ranks, per_node)


def _random_ids(
    rng: np.random.Generator, tokens: int, experts: int, top_k: int, nodes: int, top_nodes: int | None
) -> Iterator[Ids]:
    """Experts of one rank's tokens, in chunks."""
    for begin in range(0, tokens, _CHUNK):
        scores = rng.random((min(_CHUNK, tokens - begin), experts), dtype=np.float32)
        if top_nodes is not None:
            best = scores.reshape(len(scores), nodes, -1).max(axis=-1)
            threshold = np.partition(best, nodes - top_nodes, axis=1)[:, nodes - top_nodes, None]
            scores[np.repeat(best < threshold, experts // nodes, axis=1)] = -1
        yield np.argpartition(-scores, top_k - 1, axis=1)[:, :top_k].astype(np.int32)


def _typical(draw: Callable[[int], Copies], draws: int, per_node: int) -> Copies:
    """Of several draws the one whose busiest receiving port is the median."""
    drawn = sorted((draw(number) for number in range(draws)), key=lambda copies: _busiest(copies, per_node))
    return drawn[len(drawn) // 2]


def _busiest(copies: Copies, per_node: int) -> int:
    """Most selections that a rank receives from other nodes, or from other ranks where there is one node."""
    ranks = len(copies.selections)
    place = np.arange(ranks) // per_node if ranks > per_node else np.arange(ranks)
    return int(np.where(place[:, None] != place, copies.selections, 0).sum(axis=0).max())


def _turned(first: Copies, per_node: int) -> Copies:
    """Give node n's ranks the copies of the first node's, with every destination n nodes on."""

    def turn(matrix: NDArray[np.int64], per_step: int) -> NDArray[np.int64]:
        steps = len(matrix) // per_node
        return np.concatenate([np.roll(matrix[:per_node], step * per_step, axis=1) for step in range(steps)])

    return Copies(turn(first.selections, per_node), turn(first.rank_copies, per_node), turn(first.node_copies, 1))
