"""Copies: how often a token has to be sent, by selection, by destination rank and by destination node.

An all-to-all without dedup sends one copy per selected expert; one with dedup per rank sends one copy to
each distinct rank among them, and one with dedup per node one copy to each distinct node. Own rank and
own node are counted too, on the diagonal: whether such a copy crosses a wire is for the all-to-all to
say.

Counts add up over tokens, so a batch can be counted in chunks and the chunks summed: memory follows the
matrices, not the tokens.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim.errors import InputError
from moesim.traffic.copy_count import count_tokens

Dedup = Literal["none", "rank", "node"]


@dataclass(frozen=True, eq=False)
class Copies:
    """Copies by source rank and destination, counted in three ways; ``a + b`` sums two chunks of a batch.

    ``selections``: int64[ranks, ranks], one per selected expert. ``rank_copies``: int64[ranks, ranks],
    one per token and distinct rank. ``node_copies``: int64[ranks, nodes], one per token and distinct
    node.
    """

    selections: NDArray[np.int64]
    rank_copies: NDArray[np.int64]
    node_copies: NDArray[np.int64]

    def totals(self) -> "CopyTotals":
        """Sums over destinations and over sources."""
        return CopyTotals(
            selections_sent=self.selections.sum(axis=1),
            selections_received=self.selections.sum(axis=0),
            selections_own=np.diagonal(self.selections).copy(),
            ranks_sent=self.rank_copies.sum(axis=1),
            ranks_received=self.rank_copies.sum(axis=0),
            ranks_own=np.diagonal(self.rank_copies).copy(),
            nodes_sent=self.node_copies.sum(axis=1),
        )

    def __add__(self, other: "Copies") -> "Copies":
        return Copies(
            self.selections + other.selections,
            self.rank_copies + other.rank_copies,
            self.node_copies + other.node_copies,
        )


@dataclass(frozen=True, eq=False)
class CopyTotals:
    """Copies that each rank sends and receives, whatever the other end, int64[ranks] each; own ones included.

    ``selections``: one per selected expert; ``ranks``: one per token and distinct rank; ``nodes``: one per token and
    distinct node; ``own``: those that stay on their rank.
    """

    selections_sent: NDArray[np.int64]
    selections_received: NDArray[np.int64]
    selections_own: NDArray[np.int64]
    ranks_sent: NDArray[np.int64]
    ranks_received: NDArray[np.int64]
    ranks_own: NDArray[np.int64]
    nodes_sent: NDArray[np.int64]


def count_all_copies(
    slot_ids: ArrayLike, token_rank: ArrayLike, slot_rank: ArrayLike, n_ranks: int, ranks_per_node: int
) -> Copies:
    """Count the copies of a chunk of tokens in all three ways, in one pass.

    ``slot_ids``: int[tokens, top_k], the slot of each selection, -1 where it was dropped, which is not
    counted. ``token_rank``: int[tokens], where each token starts. ``slot_rank``: int[slots]. Rank ``r``
    is on node ``r // ranks_per_node``; the last node may have fewer ranks. A slot selected twice by one
    token counts as two selections. Raises ``InputError`` for shapes that do not fit, and ids or ranks out
    of range.
    """
    copies = no_copies(n_ranks, ranks_per_node)
    add_copies(copies, slot_ids, token_rank, slot_rank, ranks_per_node)
    return copies


def no_copies(n_ranks: int, ranks_per_node: int) -> Copies:
    """Return the copies of no tokens. Raises ``InputError`` unless both numbers are at least 1."""
    for name, count in (("n_ranks", n_ranks), ("ranks_per_node", ranks_per_node)):
        if count < 1:
            raise InputError(f"{name} is {count}", where="count_copies", fix="it must be at least 1")
    return Copies(
        np.zeros((n_ranks, n_ranks), np.int64),
        np.zeros((n_ranks, n_ranks), np.int64),
        np.zeros((n_ranks, -(-n_ranks // ranks_per_node)), np.int64),
    )


def add_copies(
    copies: Copies, slot_ids: ArrayLike, token_rank: ArrayLike, slot_rank: ArrayLike, ranks_per_node: int
) -> None:
    """Add the copies of a chunk of tokens to ``copies``, in place; the other arguments are ``count_all_copies``'s.

    Only the rows of the chunk's own ranks change, so chunks without a common source rank may run side by side.
    """
    slots, source, rank = checked_ids(slot_ids, token_rank, slot_rank, len(copies.selections))
    bad = count_tokens(slots, source, rank, ranks_per_node, copies.selections, copies.rank_copies, copies.node_copies)
    if bad >= 0:
        raise InputError(
            f"token {bad} has slot ids {slots[bad].tolist()}",
            where="count_copies",
            fix=f"ids are 0 to {len(rank) - 1}, or -1 for a dropped selection",
        )


def checked_ids(
    slot_ids: ArrayLike, token_rank: ArrayLike, slot_rank: ArrayLike, n_ranks: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """Return slots, source ranks and ranks of slots as int32. Raises ``InputError`` where they do not fit."""
    slots, source, rank = (
        _ids(slot_ids, "slot_ids"),
        _ids(token_rank, "token_rank"),
        _ids(slot_rank, "slot_rank"),
    )
    if slots.ndim != 2 or source.shape != slots.shape[:1] or rank.ndim != 1:
        raise InputError(
            f"slot_ids has shape {slots.shape}, token_rank {source.shape}, slot_rank {rank.shape}",
            where="count_copies",
            fix="give [tokens, top_k], [tokens] and [slots]",
        )
    for name, ranks in (("slot_rank", rank), ("token_rank", source)):
        wrong = np.flatnonzero((ranks < 0) | (ranks >= n_ranks))
        if wrong.size:
            raise InputError(
                f"{name}[{wrong[0]}] is {ranks[wrong[0]]}",
                where="count_copies",
                fix=f"ranks are 0 to {n_ranks - 1}",
            )
    return slots, source, rank


def count_copies(
    slot_ids: ArrayLike,
    token_rank: ArrayLike,
    slot_rank: ArrayLike,
    n_ranks: int,
    ranks_per_node: int,
    dedup: Dedup,
) -> NDArray[np.int64]:
    """Count copies by source rank and destination; the arguments are those of ``count_all_copies``.

    ``dedup``: ``none`` gives selections, int64[ranks, ranks]; ``rank`` one copy per token and distinct rank,
    int64[ranks, ranks]; ``node`` one copy per token and distinct node, int64[ranks, nodes].
    Raises ``InputError`` as there, and for another ``dedup``.
    """
    fields = {"none": "selections", "rank": "rank_copies", "node": "node_copies"}
    if dedup not in fields:
        raise InputError(f"unknown dedup {dedup!r}", where="count_copies", fix="use none, rank or node")
    copies = count_all_copies(slot_ids, token_rank, slot_rank, n_ranks, ranks_per_node)
    counted: NDArray[np.int64] = getattr(copies, fields[dedup])
    return counted


def _ids(values: ArrayLike, name: str) -> NDArray[np.int32]:
    """Return the ids as a contiguous int32 array; refuse what is not a whole number or does not fit."""
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        raise InputError(f"{name} has dtype {array.dtype}", where="count_copies", fix="ids are integers")
    if array.size and array.dtype != np.int32:
        limits = np.iinfo(np.int32)
        if array.min() < limits.min or array.max() > limits.max:
            raise InputError(f"{name} does not fit 32 bits", where="count_copies", fix="ids are small integers")
    return np.ascontiguousarray(array, dtype=np.int32)
