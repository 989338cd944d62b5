"""A batch: which tokens are on which rank, and which router logits each of them has.

Tokens repeat (a recording is finite, a cluster is hungry), logits do not: a batch keeps the logits of
its *distinct* tokens once and says for each simulated token which row is its own. The router then runs
over the distinct rows only. Which row a token has follows from its position, so that whoever follows tokens asks for
them part by part: memory follows the distinct tokens, not all of them.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.workload.token_draw import Draw, Ints, Part, count_rows

Logits = NDArray[np.float16] | NDArray[np.float32]


@dataclass(frozen=True)
class Batch:
    """One simulated batch of T tokens, of which D are distinct; rows of logits or ids are distinct tokens."""

    logits: Mapping[int, Logits] | None
    """Layer -> logits[D, E] of the distinct tokens; None when the experts are given instead."""
    bias: Mapping[int, NDArray[np.float32]]
    """Layer -> bias[E] of the router; zeros where none was recorded."""
    expert_ids: Mapping[int, NDArray[np.int32]] | None
    """Layer -> expert ids[D, K], when the workload gives the experts themselves."""
    rank_tokens: NDArray[np.int64]
    """[R]: tokens that start on each rank; tokens are in the order of the ranks."""
    part: Part
    """Row and drawn sequence of the tokens from one position to another; a sequence drawn twice has two numbers."""
    domain: NDArray[np.int8]
    """[D]: position in ``domain_names``."""
    domain_names: tuple[str, ...]
    distinct_tokens: int
    """D."""
    notes: tuple[str, ...] = ()
    """Where these tokens come from, in sentences for the report."""
    estimated: tuple[str, ...] = ()
    """What about these tokens is estimated and not given by the input, in sentences for the report."""
    resampled: Mapping[str, Any] | None = None
    """The resampling model's name and its target and achieved figures; None where none was needed."""

    @property
    def tokens(self) -> int:
        """Number of tokens simulated, T."""
        return int(self.rank_tokens.sum())

    def ranks(self, start: int, stop: int) -> Ints:
        """Return the rank on which each token from one position to another starts."""
        ends = np.cumsum(self.rank_tokens)
        here = np.clip(ends, start, stop) - np.clip(ends - self.rank_tokens, start, stop)
        return np.repeat(np.arange(len(ends), dtype=np.int32), here)

    @property
    def token_index(self) -> Ints:
        """[T]: the row of each token, all at once."""
        return self.part(0, self.tokens)[0]

    @property
    def token_rank(self) -> Ints:
        """[T], non-decreasing: the rank on which each token starts, all at once."""
        return self.ranks(0, self.tokens)

    @property
    def sequence(self) -> Ints:
        """[T]: the drawn sequence of each token, all at once."""
        return self.part(0, self.tokens)[1]

    @cached_property
    def of_rows(self) -> tuple[NDArray[np.int64], Ints]:
        """How many tokens each distinct one stands for, and the first drawn sequence that it is in, [D] each."""
        return count_rows(self.part, self.tokens, self.distinct_tokens)

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that this batch has logits or experts for, ascending."""
        rows = self.logits if self.logits is not None else self.expert_ids
        return tuple(sorted(rows or ()))


def micro_batches(batch: Batch, parts: int) -> tuple[Batch, ...]:
    """Cut every rank's tokens into ``parts`` runs of nearly equal length, in their order."""
    if parts == 1:
        return (batch,)
    row, sequence = batch.part(0, batch.tokens)
    counts, begins = batch.rank_tokens, np.cumsum(batch.rank_tokens) - batch.rank_tokens
    cuts = -(-np.arange(parts + 1)[:, None] * counts // parts)
    return tuple(_only(batch, row, sequence, begins + first, last - first) for first, last in pairwise(cuts))


def without_ranks(batch: Batch, gone: Collection[int]) -> Batch:
    """Return the batch without the tokens of some ranks."""
    counts, begins = batch.rank_tokens.copy(), np.cumsum(batch.rank_tokens) - batch.rank_tokens
    counts[list(gone)] = 0
    return _only(batch, *batch.part(0, batch.tokens), begins, counts)


def _only(batch: Batch, row: Ints, sequence: Ints, first: NDArray[np.int64], counts: NDArray[np.int64]) -> Batch:
    """The tokens of a run per rank, each so many from a first one."""
    kept = np.repeat(first - (np.cumsum(counts) - counts), counts) + np.arange(int(counts.sum()))
    rows, index = np.unique(row[kept], return_inverse=True)
    return replace(
        batch,
        logits=None if batch.logits is None else {layer: of[rows] for layer, of in batch.logits.items()},
        expert_ids=None if batch.expert_ids is None else {layer: of[rows] for layer, of in batch.expert_ids.items()},
        rank_tokens=counts,
        part=listed(index.astype(np.int32), sequence[kept]),
        domain=batch.domain[rows],
        distinct_tokens=len(rows),
    )


def listed(row: Ints, sequence: Ints) -> Part:
    """Return the parts of tokens whose rows and sequences, [T] each, are at hand."""
    return lambda start, stop: (row[start:stop], sequence[start:stop])


def drawn_batch(
    drawn: Draw, n_experts: int, domain: str, notes: tuple[str, ...], *, logits: Mapping[int, Logits] | None = None,
    expert_ids: Mapping[int, NDArray[np.int32]] | None = None, bias: Mapping[int, NDArray[np.float32]] | None = None,
    estimated: tuple[str, ...] = (),
) -> Batch:  # fmt: skip
    """Return the batch of drawn tokens of one domain: their logits, or their experts, for which no router runs."""
    return Batch(
        logits=logits,
        bias=bias or {layer: np.zeros(n_experts, np.float32) for layer in logits or expert_ids or ()},
        expert_ids=expert_ids,
        rank_tokens=drawn.rank_tokens,
        part=drawn.part,
        domain=np.zeros(len(drawn.rows), np.int8),
        domain_names=(domain,),
        distinct_tokens=len(drawn.rows),
        notes=notes,
        estimated=estimated,
    )
