"""Which tokens are simulated, and on which rank each starts.

Sequences are the unit of drawing: tokens of one text resemble each other, so drawing single tokens would
destroy the correlation that makes loads uneven. As many tokens as there are, or fewer, are taken once and
in order; more come by *block bootstrap*: whole sequences, uniformly, with replacement, the last one cut.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError

Half = Literal["first", "second"]
MAX_TOKENS = 1 << 27
"""Index arrays take 13 bytes per token, so this is under 2 GB; a typo is refused."""


@dataclass(frozen=True)
class Draw:
    """T tokens drawn from a pool, in the order of the ranks that they start on."""

    rows: NDArray[np.int64]
    """[D]: the positions in the pool that were drawn, ascending."""
    token_index: NDArray[np.int32]
    """[T]: position in ``rows`` of each token."""
    token_rank: NDArray[np.int32]
    """[T], non-decreasing."""
    sequence: NDArray[np.int32]
    """[T]: number of the drawn sequence, in drawing order."""
    bootstrapped: bool
    """More tokens were asked for than the pool holds."""


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
    begins = np.flatnonzero(np.diff(sequence_of_token, prepend=sequence_of_token[0] - 1))
    lengths = np.diff(begins, append=pool)
    bootstrap |= wanted > pool
    if not bootstrap:
        source = np.arange(wanted, dtype=np.int32)
        occurrence = np.repeat(np.arange(len(begins), dtype=np.int32), lengths)[:wanted]
    else:
        source, occurrence = _bootstrap(begins, lengths, wanted, rng)
    if assign == "striped":
        dealt = _dealing_position(counts)
        source, occurrence = source[dealt], occurrence[dealt]
    drawn = np.zeros(pool, np.bool_)
    drawn[source] = True
    place = np.cumsum(drawn, dtype=np.int32) - np.int32(1)
    return Draw(
        rows=np.flatnonzero(drawn),
        token_index=place[source],
        token_rank=np.repeat(np.arange(len(counts), dtype=np.int32), counts),
        sequence=occurrence,
        bootstrapped=bootstrap,
    )


def draw_blocks(
    tokens: int, block: int, counts: NDArray[np.int64], assign: str, rng: np.random.Generator, bootstrap: bool = False
) -> Draw:
    """Draw from ``tokens`` tokens without known sequences: blocks of ``block`` tokens stand for them.

    Raises InputError as ``draw_tokens`` does, and for a block of no tokens.
    """
    if block < 1:
        raise InputError(f"{block} tokens per sequence", "workload.sequence_length", "at least 1 is needed")
    return draw_tokens((np.arange(tokens) // block).astype(np.int32), counts, assign, rng, bootstrap)


def _bootstrap(
    begins: NDArray[np.intp], lengths: NDArray[np.intp], wanted: int, rng: np.random.Generator
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return pool positions [wanted] and drawn-sequence numbers [wanted] of a block bootstrap."""
    # The shortest sequence bounds how many draws can be needed; the surplus is cut below.
    drawn = rng.integers(0, len(begins), size=-(-wanted // int(lengths.min())))
    needed = int(np.searchsorted(np.cumsum(lengths[drawn]), wanted)) + 1
    drawn = drawn[:needed]
    length = lengths[drawn]
    occurrence = np.repeat(np.arange(needed, dtype=np.int32), length)
    # From one token to the next the position grows by one, and jumps where a sequence begins.
    source = np.ones(len(occurrence), np.int32)
    start = np.cumsum(length[:-1])
    source[0] = begins[drawn[0]]
    source[start] = begins[drawn[1:]] - (begins[drawn[:-1]] + length[:-1] - 1)
    np.cumsum(source, out=source)
    return source[:wanted], occurrence[:wanted]


def _dealing_position(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Turn at which each token, sorted by rank, was dealt: ranks take turns until they are full."""
    total = int(counts.sum())
    rank = np.repeat(np.arange(len(counts)), counts)
    round_of_token = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
    turn = np.empty(total, np.int64)
    turn[np.lexsort((rank, round_of_token))] = np.arange(total)
    return turn
