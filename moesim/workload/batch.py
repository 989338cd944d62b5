"""A batch: which tokens are on which rank, and which router logits each of them has.

Tokens repeat (a recording is finite, a cluster is hungry), logits do not: a batch keeps the logits of
its *distinct* tokens once and says for each simulated token which row is its own. The router then runs
over the distinct rows only, and its answer is gathered by ``token_index``.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.workload.token_draw import Draw

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
    token_index: NDArray[np.int32]
    """[T]: the row of each token."""
    token_rank: NDArray[np.int32]
    """[T], non-decreasing: the rank on which each token starts."""
    sequence: NDArray[np.int32]
    """[T]: an id per drawn sequence; one that is drawn twice has two ids."""
    domain: NDArray[np.int8]
    """[T]: position in ``domain_names``."""
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
        return len(self.token_index)

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that this batch has logits or experts for, ascending."""
        rows = self.logits if self.logits is not None else self.expert_ids
        return tuple(sorted(rows or ()))


def micro_batches(batch: Batch, parts: int) -> tuple[Batch, ...]:
    """Cut every rank's tokens into ``parts`` runs of nearly equal length, in their order."""
    if parts == 1:
        return (batch,)
    begins = np.searchsorted(batch.token_rank, batch.token_rank)
    counts = np.searchsorted(batch.token_rank, batch.token_rank, side="right") - begins
    part = (np.arange(batch.tokens) - begins) * parts // counts
    return tuple(_only(batch, part == index) for index in range(parts))


def without_ranks(batch: Batch, gone: Collection[int]) -> Batch:
    """Return the batch without the tokens of some ranks."""
    return _only(batch, ~np.isin(batch.token_rank, list(gone)))


def _only(batch: Batch, kept: NDArray[np.bool_]) -> Batch:
    rows, index = np.unique(batch.token_index[kept], return_inverse=True)
    return replace(
        batch,
        logits=None if batch.logits is None else {layer: of[rows] for layer, of in batch.logits.items()},
        expert_ids=None if batch.expert_ids is None else {layer: of[rows] for layer, of in batch.expert_ids.items()},
        token_index=index.astype(np.int32),
        token_rank=batch.token_rank[kept],
        sequence=batch.sequence[kept],
        domain=batch.domain[kept],
        distinct_tokens=len(rows),
    )


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
        token_index=drawn.token_index,
        token_rank=drawn.token_rank,
        sequence=drawn.sequence,
        domain=np.zeros(len(drawn.token_index), np.int8),
        domain_names=(domain,),
        distinct_tokens=len(drawn.rows),
        notes=notes,
        estimated=estimated,
    )
