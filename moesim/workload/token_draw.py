"""Which tokens are simulated, and on which rank each starts.

Sequences are the unit of drawing: tokens of one text resemble each other, so drawing single tokens would
destroy the correlation that makes loads uneven. As many tokens as there are, or fewer, are taken once and
in order; more come by *block bootstrap*: whole sequences, uniformly, with replacement, the last one cut.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError

Half = Literal["first", "second"]
Ints = NDArray[np.int32]
Part = Callable[[int, int], tuple[Ints, Ints]]
"""From one position to another, in the order of the ranks: each token's row, and the number of its drawn sequence."""
MAX_TOKENS = 1 << 27
"""Positions fit 32 bits with room to spare; a typo is refused."""
_AT_ONCE, _DRAWN_AT_ONCE = 1 << 16, 1 << 20


@dataclass(frozen=True)
class Draw:
    """T tokens drawn from a pool, in the order of the ranks that they start on: a token follows from its position."""

    rows: NDArray[np.int64]
    """[D]: the positions in the pool that were drawn, ascending."""
    rank_tokens: NDArray[np.int64]
    """[R]: tokens of each rank."""
    part: Part
    bootstrapped: bool
    """More tokens were asked for than the pool holds."""

    @property
    def tokens(self) -> int:
        """T."""
        return int(self.rank_tokens.sum())

    def times(self) -> NDArray[np.float64]:
        """How often each row occurs, [D]."""
        return count_rows(self.part, self.tokens, len(self.rows))[0].astype(np.float64)


def count_rows(part: Part, tokens: int, distinct: int) -> tuple[NDArray[np.int64], Ints]:
    """Return how many of the tokens have each row, and the first drawn sequence that it is in, [D] each."""
    times = np.zeros(distinct, np.int64)
    first = np.full(distinct, np.iinfo(np.int32).max, np.int32)
    for start in range(0, tokens, _AT_ONCE):
        rows, sequence = part(start, min(start + _AT_ONCE, tokens))
        np.add.at(times, rows, 1)
        np.minimum.at(first, rows, sequence)
    return times, first


DEFAULT_TOKENS_PER_RANK = 4096
"""Of tokens that are drawn or dealt, not recorded."""


def tokens_of_ranks(
    tokens_per_rank: int | Sequence[int] | None, n_ranks: int, available: int | None = None
) -> NDArray[np.int64]:
    """Return the number of tokens of each rank [n_ranks]; by default the available ones, if any are, shared evenly.

    Raises InputError for a list of another length, a negative count, or a batch without tokens.
    """
    where = "workload.tokens_per_rank"
    if n_ranks < 1:
        raise InputError(f"{n_ranks} ranks cannot hold tokens", where="n_ranks", fix="at least 1 is needed")
    if tokens_per_rank is None:
        if available is not None and available < n_ranks:
            what = f"{available} tokens are fewer than {n_ranks} ranks"
            raise InputError(what, where, "give the tokens of each rank")
        tokens_per_rank = DEFAULT_TOKENS_PER_RANK if available is None else available // n_ranks
    given = np.asarray(tokens_per_rank)
    if given.dtype.kind not in "iu":
        raise InputError(f"{tokens_per_rank!r} is not a number of tokens", where=where, fix="give whole numbers")
    if given.ndim > 1 or (given.ndim == 1 and len(given) != n_ranks):
        raise InputError(
            f"{given.size} values for {n_ranks} ranks", where=where, fix="give one number, or one per rank"
        )
    counts = np.broadcast_to(given.astype(np.int64), (n_ranks,)).copy()
    if counts.min() < 0:
        rank = int(counts.argmin())
        raise InputError(f"rank {rank} holds {counts[rank]} tokens", where=where, fix="give 0 or more")
    # A float sum cannot overflow, whatever was typed.
    if not 0 < counts.sum(dtype=np.float64) <= MAX_TOKENS:
        raise InputError(
            f"a batch of {counts.sum(dtype=np.float64):.0f} tokens",
            where=where,
            fix=f"between 1 and {MAX_TOKENS} can be simulated at once",
        )
    return counts


def half_of(sequence: NDArray[np.int32] | None, tokens: int, half: Half | None) -> slice:
    """Return which of the recorded tokens [tokens] are their first or second half, cut between two sequences.

    Without ``half`` all; where sequences are not marked the cut is in the middle.
    """
    if half is None:
        return slice(0, tokens)
    cut = tokens // 2
    if sequence is not None and len(begins := np.flatnonzero(np.diff(sequence)) + 1):
        cut = int(begins[np.abs(begins - tokens / 2).argmin()])
    return slice(0, cut) if half == "first" else slice(cut, tokens)


def draw_tokens(
    sequence_of_token: NDArray[np.int32],
    counts: NDArray[np.int64],
    assign: str,
    rng: np.random.Generator,
    bootstrap: bool = False,
) -> Draw:
    """Draw sum(counts) tokens from a pool of len(sequence_of_token) and lay them on the ranks.

    ``sequence_of_token`` [pool] names the sequence of each pool token; tokens of a sequence stand together.
    ``assign`` is ``by_sequence`` (drawn sequences end to end, cut at the ranks' boundaries: a sequence
    stays on one rank or two neighbours) or ``striped`` (tokens dealt out one by one: token i goes to
    rank i mod R, past ranks that are full). ``rng`` is used only by the bootstrap, which is there for more
    tokens than the pool has; ``bootstrap``: for any number.

    Raises InputError for an unknown ``assign`` or an empty pool.
    """
    if assign not in ("by_sequence", "striped"):
        raise InputError(f"unknown assign {assign!r}", where="workload.assign", fix="use by_sequence or striped")
    pool, wanted = len(sequence_of_token), int(counts.sum())
    if pool == 0:
        raise InputError("no token to draw from", where="workload", fix="choose other domains or layers")
    begins = np.flatnonzero(np.diff(sequence_of_token, prepend=sequence_of_token[0] - 1)).astype(np.int32)
    lengths = np.diff(begins, append=np.int32(pool))
    bootstrap |= wanted > pool
    if not bootstrap:
        drawn = np.arange(np.searchsorted(begins, wanted), dtype=np.int32)
    else:
        drawn = _bootstrap(lengths, wanted, rng)
    length = lengths[drawn]
    ends = np.cumsum(length, dtype=np.int32)
    shift = begins[drawn] - (ends - length)  # from a token's turn to its position in the pool
    taken = np.zeros_like(lengths)  # of each sequence: the last that is drawn is cut
    length[-1] -= ends[-1] - wanted
    np.maximum.at(taken, drawn, length)
    in_draw = np.arange(pool) - np.repeat(begins, lengths) < np.repeat(taken, lengths)
    place = np.cumsum(in_draw, dtype=np.int32) - np.int32(1)

    def part(start: int, stop: int) -> tuple[Ints, Ints]:
        turn = _turns(counts, start, stop) if assign == "striped" else np.arange(start, stop, dtype=np.int32)
        sequence = np.searchsorted(ends, turn, side="right").astype(np.int32)
        return place[shift[sequence] + turn], sequence

    return Draw(np.flatnonzero(in_draw), counts, part, bootstrap)


def draw_blocks(
    tokens: int, block: int, counts: NDArray[np.int64], assign: str, rng: np.random.Generator, bootstrap: bool = False
) -> Draw:
    """Draw from ``tokens`` tokens without known sequences: blocks of ``block`` tokens stand for them.

    Raises InputError as ``draw_tokens`` does, and for a block of no tokens.
    """
    if block < 1:
        raise InputError(f"{block} tokens per sequence", "workload.sequence_length", "at least 1 is needed")
    return draw_tokens((np.arange(tokens) // block).astype(np.int32), counts, assign, rng, bootstrap)


def _bootstrap(lengths: Ints, wanted: int, rng: np.random.Generator) -> Ints:
    """Draw sequences with replacement until they hold the tokens wanted; the last may hold more."""
    drawn, missing = [], wanted
    # The shortest sequence bounds how many draws can be needed. All are made: what ``rng`` gives next is the same.
    for left in range(-(-wanted // int(lengths.min())), 0, -_DRAWN_AT_ONCE):
        some = rng.integers(0, len(lengths), size=min(left, _DRAWN_AT_ONCE)).astype(np.int32)
        if missing > 0:
            ends = np.cumsum(lengths[some], dtype=np.int64)
            drawn.append(some[: np.searchsorted(ends, missing) + 1])
            missing -= int(ends[-1])
    return np.concatenate(drawn)


def _turns(counts: NDArray[np.int64], start: int, stop: int) -> Ints:
    """Turn at which tokens, by their positions in the order of the ranks, are dealt: ranks take turns until full."""
    ends, in_order = np.cumsum(counts), np.sort(counts)
    dealt = np.append(0, np.cumsum(in_order))
    turn = np.empty(stop - start, np.int32)
    first, last = np.searchsorted(ends, (start, stop - 1), side="right")
    for rank in range(first, last + 1):
        begin = int(ends[rank] - counts[rank])
        position = np.arange(max(start, begin), min(stop, int(ends[rank])))
        before = position - begin  # rounds, in each of which every rank with room had a token
        full = np.searchsorted(in_order, before, side="right")
        passed = np.searchsorted(np.sort(counts[:rank]), before, side="right")
        turn[position - start] = dealt[full] + before * (len(counts) - full) + rank - passed
    return turn
